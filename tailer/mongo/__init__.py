"""Everything that speaks to MongoDB; the only package of the daemon that imports motor, pymongo or bson."""
