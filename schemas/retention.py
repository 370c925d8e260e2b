"""The retention policy a user writes under ``rotate``."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from schemas.base import Duration, Spec


class RetentionPolicy(Spec):
    """Rules that add up: what any of them keeps is kept."""

    suggested: ClassVar[tuple[str, ...]] = ("daily", "weekly", "monthly")

    last: int | None = Field(None, ge=1, description="The newest so many.", examples=[3])
    hourly: int | None = Field(
        None, ge=1, description="The newest of each of so many hours.", examples=[24]
    )
    daily: int | None = Field(
        None, ge=1, description="The newest of each of so many days.", examples=[7]
    )
    weekly: int | None = Field(
        None, ge=1, description="The newest of each of so many ISO weeks.", examples=[5]
    )
    monthly: int | None = Field(
        None, ge=1, description="The newest of each of so many months.", examples=[12]
    )
    yearly: int | None = Field(
        None, ge=1, description="The newest of each of so many years.", examples=[2]
    )
    within: Duration | None = Field(
        None, description="Everything younger than this.", examples=["30d"]
    )

    @model_validator(mode="after")
    def _not_empty(self) -> RetentionPolicy:
        if all(value is None for value in self.__dict__.values()):
            raise ValueError("an empty policy would remove everything; give at least one rule")
        return self
