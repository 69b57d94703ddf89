"""Where in the image the evidence is: location maps, what they are compared with, and their regions."""
