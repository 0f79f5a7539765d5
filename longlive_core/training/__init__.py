"""How a model is trained: forwards and schedules as pure functions, and the trainers over them."""
