"""Learn a text with `CharRNN`, keep the model in a file, and let it write.

    python examples/02_train_on_a_text.py [TEXT [SECONDS]]

TEXT is a UTF-8 file; without one, the source code of Python's standard library is learned, for 5
seconds.  The model is kept in ./model.safetensors.  A shell does the same with

    fastrnn train TEXT --out model.safetensors --seconds 5
    fastrnn sample model.safetensors
"""

import math
import sys
from pathlib import Path

from fastrnn import CharRNN
from fastrnn.text import standard_library_source

text = Path(sys.argv[1]) if sys.argv[1:] else standard_library_source()
seconds = float(sys.argv[2]) if sys.argv[2:] else 5.0

model = CharRNN(
    hidden_size=128,  # larger models learn more, and take longer
    batch_size=32,
    lr=5e-3,
    epochs=None,  # the time is the limit
    max_seconds=seconds,
    random_state=0,
)
model.fit(text)

last = model.history_[-1]
print(f"{model.step_:,} steps, {last['chars_per_second']:,.0f} characters per second")
print(f"a guess:          {math.log(len(model.vocabulary_)):.3f} nats per character")
print(f"what it learned:  {last['train_nats']:.3f}")
print(f"what it did not:  {last['valid_nats']:.3f}")

model.save("model.safetensors")
loaded = CharRNN.load("model.safetensors")
if loaded.generate(50, random_state=1) != model.generate(50, random_state=1):
    sys.exit("the file does not hold the same model")

print("\nA sample, as the model sees it:")
for character in loaded.stream(200, random_state=1):
    print(character, end="", flush=True)
print("\n\nThree that play safe, from the same prompt:")
for sample in loaded.generate(60, prompt="e", temperature=0.5, num_samples=3, random_state=1):
    print("  e" + sample.partition("\n")[0])
