"""The seam: what a plugin says (descriptors) and does (protocols), when it is asked (hooks), who is there (catalog)."""

from tunemark.plugin.catalog import Catalog as Catalog
from tunemark.plugin.descriptors import Accelerator as Accelerator
from tunemark.plugin.descriptors import Architecture as Architecture
from tunemark.plugin.descriptors import Dataset as Dataset
from tunemark.plugin.descriptors import DeviceState as DeviceState
from tunemark.plugin.descriptors import Example as Example
from tunemark.plugin.descriptors import Finding as Finding
from tunemark.plugin.descriptors import Format as Format
from tunemark.plugin.descriptors import Importer as Importer
from tunemark.plugin.descriptors import Launch as Launch
from tunemark.plugin.descriptors import Launcher as Launcher
from tunemark.plugin.descriptors import Model as Model
from tunemark.plugin.descriptors import Piece as Piece
from tunemark.plugin.descriptors import ProcessState as ProcessState
from tunemark.plugin.descriptors import Strategy as Strategy
from tunemark.plugin.descriptors import TokenizerName as TokenizerName
from tunemark.plugin.descriptors import ToolReading as ToolReading
from tunemark.plugin.hooks import hookimpl as hookimpl
from tunemark.plugin.protocols import DatasetSource as DatasetSource
from tunemark.plugin.protocols import Device as Device
from tunemark.plugin.protocols import ReadsOutput as ReadsOutput
from tunemark.plugin.protocols import Tokenizer as Tokenizer
