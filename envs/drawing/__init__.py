"""Drawing helpers shared by the renderings of the families."""
