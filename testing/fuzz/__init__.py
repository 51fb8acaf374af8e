"""What `fuzz_api.py` is made of: values, how they are disguised and spoilt, and a file of calls for each
class."""
