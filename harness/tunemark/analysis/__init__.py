"""Compare results with each other and with published claims, which are read, rederived and judged."""

from tunemark.analysis.audit import Audited as Audited
from tunemark.analysis.audit import audit as audit
from tunemark.analysis.known import Given as Given
from tunemark.analysis.own import audit_run as audit_run
from tunemark.analysis.own import claim_of as claim_of
from tunemark.analysis.own import findings_on as findings_on
from tunemark.analysis.reading import Reading as Reading
from tunemark.analysis.reading import read as read
