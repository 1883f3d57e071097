"""A finished student as a folder to publish and serve: safetensors, model card, ONNX in float and in int8."""
