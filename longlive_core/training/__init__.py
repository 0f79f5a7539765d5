"""Training: noise schedules and teacher-forced forwards as pure functions, and the trainers of LongLive Mini."""
