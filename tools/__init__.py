"""Makes things of the lessons, from the folder of the course: `python -m tools.course notebooks build/course`."""
