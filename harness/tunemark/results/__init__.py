"""The runs folder (the store) and what is derived from it: measurements, estimates, findings, results."""

from tunemark.results.imported_claims import ImportedClaim as ImportedClaim
from tunemark.results.imported_claims import encode_claim as encode_claim
from tunemark.results.imported_claims import read_stored_claims as read_stored_claims
from tunemark.results.imported_claims import store_claims as store_claims
from tunemark.results.measurement import JobTokens as JobTokens
from tunemark.results.measurement import read_measurement as read_measurement
from tunemark.results.result import Estimate as Estimate
from tunemark.results.result import Result as Result
from tunemark.results.result import RunIdentity as RunIdentity
from tunemark.results.result import decode_result as decode_result
from tunemark.results.result import encode_result as encode_result
from tunemark.results.run_statistics import derive_result as derive_result
from tunemark.results.schema import result_schema as result_schema
from tunemark.results.store import Store as Store
from tunemark.results.stored_attempt import StoredAttempt as StoredAttempt
from tunemark.results.timed_part import timed_seconds_per_step as timed_seconds_per_step
