"""Start a plan's processes, follow them, and say how they ended. Effects: processes, and code copies in the store."""

from tunemark.launch.attempt_end import AttemptEnd as AttemptEnd
from tunemark.launch.attempt_follower import POLL_S as POLL_S
from tunemark.launch.attempt_follower import AttemptFollower as AttemptFollower
from tunemark.launch.code_copy import CodeCopy as CodeCopy
from tunemark.launch.code_copy import copy_code as copy_code
from tunemark.launch.code_copy import user_code_folder as user_code_folder
from tunemark.launch.host_facts import processor_name as processor_name
from tunemark.launch.host_facts import read_host_facts as read_host_facts
from tunemark.launch.interpreter import Interpreter as Interpreter
from tunemark.launch.interpreter import check_interpreter as check_interpreter
from tunemark.launch.interpreter import check_plans as check_plans
from tunemark.launch.interpreter import find_remarks as find_remarks
from tunemark.launch.interpreter import query_interpreter as query_interpreter
from tunemark.launch.local_launcher import LocalLauncher as LocalLauncher
