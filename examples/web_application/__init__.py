"""How a web application hands relink sessions over; read `app.py` first."""
