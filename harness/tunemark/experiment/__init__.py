"""An experiment: the user's settings, the grid of runs that they ask for (points), and each run resolved (plans)."""

from tunemark.experiment.evaluation import check_not_saved_before as check_not_saved_before
from tunemark.experiment.evaluation import check_save_writable as check_save_writable
from tunemark.experiment.evaluation import is_saved as is_saved
from tunemark.experiment.experiment import Experiment as Experiment
from tunemark.experiment.experiment import GridPoint as GridPoint
from tunemark.experiment.experiment import make_experiment as make_experiment
from tunemark.experiment.experiment import make_grid_points as make_grid_points
from tunemark.experiment.plan import Plan as Plan
from tunemark.experiment.planning import derive_plan as derive_plan
from tunemark.experiment.planning import make_plan as make_plan
from tunemark.experiment.planning import make_plans as make_plans
from tunemark.experiment.run_spec import RunSpec as RunSpec
from tunemark.experiment.run_spec import run_id as run_id
from tunemark.experiment.scaling_batches import assign_scaling_batches as assign_scaling_batches
from tunemark.experiment.settings import SETTINGS as SETTINGS
from tunemark.experiment.settings import experiment_schema as experiment_schema
from tunemark.experiment.settings import settings_table as settings_table
from tunemark.experiment.value_parsing import format_named_options as format_named_options
from tunemark_worker.training_settings import Setting as Setting
