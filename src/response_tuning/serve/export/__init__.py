"""A tuned model leaves: as a whole folder, a GGUF file, for Ollama, or for the hub.

What is exported is compared with the model that was tuned before it gets its place
(``proof``). The steps, in their order: ``whole`` writes a folder of safetensors, ``pieces`` looks
after SentencePiece's file, ``converter`` writes GGUF, ``modelfile`` describes it to Ollama, and
``card`` and ``hub`` describe and upload it.
"""
