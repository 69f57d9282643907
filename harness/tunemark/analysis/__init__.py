"""Compare results with each other and with published claims, which are read, rederived and judged."""

from tunemark.analysis.audit import AuditedClaim as AuditedClaim
from tunemark.analysis.audit import audit_claims as audit_claims
from tunemark.analysis.claim_reader import ParsedSource as ParsedSource
from tunemark.analysis.claim_reader import follow_claims as follow_claims
from tunemark.analysis.claim_reader import read_claims as read_claims
from tunemark.analysis.judgement import audit_run as audit_run
from tunemark.analysis.judgement import judge as judge
from tunemark.analysis.judgement import make_claim as make_claim
from tunemark.analysis.plausibility import UserFacts as UserFacts
