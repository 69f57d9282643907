"""An experiment: the user's settings, the grid of runs that they ask for (points), and each run resolved (plans)."""

from tunemark.experiment.beside import check_not_saved as check_not_saved
from tunemark.experiment.beside import is_saved as is_saved
from tunemark.experiment.beside import prove_saveable as prove_saveable
from tunemark.experiment.experiment import Experiment as Experiment
from tunemark.experiment.experiment import Point as Point
from tunemark.experiment.experiment import make_experiment as make_experiment
from tunemark.experiment.experiment import points as points
from tunemark.experiment.experiment import read_toml as read_toml
from tunemark.experiment.plan import Plan as Plan
from tunemark.experiment.plan import RunSpec as RunSpec
from tunemark.experiment.plan import run_id as run_id
from tunemark.experiment.resolve import joined as joined
from tunemark.experiment.resolve import resolve as resolve
from tunemark.experiment.resolve import resolve_all as resolve_all
from tunemark.experiment.scale import scale_points as scale_points
from tunemark.experiment.settings import SETTINGS as SETTINGS
from tunemark.experiment.settings import Setting as Setting
from tunemark.experiment.settings import json_schema as json_schema
from tunemark.experiment.settings import markdown_table as markdown_table
