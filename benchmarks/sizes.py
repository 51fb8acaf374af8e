"""What is measured, and at which sizes; nothing else, so that the report can read it by itself."""

OPERATIONS = ("forward", "backward", "train_step", "sample")
DTYPES = ("float64", "float32")

#: Size d and q: distinct characters of a plain English text.
VOCABULARY = 65

#: (h, T) of the short selection and of the report's tables.
SIZES = ((32, 100), (100, 4), (100, 25), (100, 100), (256, 100), (512, 64))

#: The whole grid.
ALL_H = (16, 32, 64, 100, 128, 256, 512, 1024)
ALL_T = (1, 4, 25, 100, 1000, 10_000)

#: Lengths over which the time must grow linearly, and the hidden size at which it is looked at.
SCALING_T = (100, 316, 1000, 3162, 10_000, 31_623, 100_000)
SCALING_H = 100

#: The reference loop in float64, which every speed-up is against.
BASELINE = "reference"

#: (h, T, N) of the batches.
BATCHES = ((64, 50, 32), (128, 50, 32), (256, 64, 64), (512, 64, 64))

BATCH_OPERATIONS = ("train_step", "forward", "sample")

#: Hidden sizes and numbers of sequences of the tables of few sequences, and their time steps.
FEW_HIDDEN = (256, 512, 1024, 2048)
FEW_SEQUENCES = (1, 2, 4, 8, 16, 32)
FEW_STEPS = 64

FEW_OPERATIONS = ("train_step", "forward")

#: (h, N) over which the means of those tables go.
FEW_COUNTED = ((512, 1), (512, 4), (512, 16), (1024, 1), (1024, 8), (1024, 16))

#: Rows and columns of the matrices whose product gives the machine's GEMM rate.
GEMM_SIZE = 2048

#: Where the distribution of the times of single steps is looked at, in percent.
PERCENTILES = (50.0, 99.0, 99.9, 100.0)
