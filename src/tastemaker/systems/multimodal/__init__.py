"""Images and text beside ids."""
