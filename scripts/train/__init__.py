"""The recipe of the shipped embedder: crops, teach, distill, export.

    photos ──crops──▶ shards of 128x128 crops ──teach──▶ target vectors ──distill──▶ student ──export──▶ a model that facepipe runs

Each step reads what the one before it wrote to disk, can be stopped at any moment, and goes on where it was. Nothing here is
imported by the package; detection, alignment, networks and evaluation are the package's own.
"""
