"""What would spoil a measurement on this machine, found before it is made. Effects: reads the kernel's files, asks
vendors' programs and the interpreter that trains; changes nothing."""

from tunemark.doctor.diagnosis import Diagnosis as Diagnosis
from tunemark.doctor.examination import examine as examine
from tunemark.doctor.examination import examine_for_run as examine_for_run
from tunemark.doctor.machine import Machine as Machine
from tunemark.doctor.memory_checks import read_available_memory as read_available_memory
