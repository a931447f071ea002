"""Step 3, match: embeddings are compared with the gallery's people through a FAISS index."""
