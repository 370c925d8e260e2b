"""The retention policy a user writes under ``rotate``."""

from __future__ import annotations

from pydantic import Field, model_validator

from schemas.base import Duration, Spec


class RetentionPolicy(Spec):
    """Rules that add up: what any of them keeps is kept."""

    last: int | None = Field(None, ge=1, description="The newest so many.")
    hourly: int | None = Field(None, ge=1, description="The newest of each of so many hours.")
    daily: int | None = Field(None, ge=1, description="The newest of each of so many days.")
    weekly: int | None = Field(None, ge=1, description="The newest of each of so many ISO weeks.")
    monthly: int | None = Field(None, ge=1, description="The newest of each of so many months.")
    yearly: int | None = Field(None, ge=1, description="The newest of each of so many years.")
    within: Duration | None = Field(None, description="Everything younger than this.")

    @model_validator(mode="after")
    def _not_empty(self) -> RetentionPolicy:
        if all(value is None for value in self.__dict__.values()):
            raise ValueError("an empty policy would remove everything; give at least one rule")
        return self
