"""The runs folder (the store) and what is derived from it: measurements, estimates, findings, results."""

from tunemark.results.estimate import Attempt as Attempt
from tunemark.results.estimate import estimate as estimate
from tunemark.results.estimate import timed_steps as timed_steps
from tunemark.results.imported import Imported as Imported
from tunemark.results.imported import encode_imported as encode_imported
from tunemark.results.imported import keep as keep
from tunemark.results.imported import read_imported as read_imported
from tunemark.results.measurement import Counts as Counts
from tunemark.results.measurement import Measurement as Measurement
from tunemark.results.measurement import read as read
from tunemark.results.result import Estimate as Estimate
from tunemark.results.result import Identity as Identity
from tunemark.results.result import Result as Result
from tunemark.results.result import decode as decode
from tunemark.results.result import encode as encode
from tunemark.results.schema import json_schema as json_schema
from tunemark.results.store import Store as Store
