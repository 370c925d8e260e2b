"""Source mongodb: MongoDB and what speaks its protocol."""

from __future__ import annotations

import json
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from schemas.base import Duration, Secret, Spec, Text, in_schema
from schemas.tls import Tls

_SCHEMES = ("mongodb://", "mongodb+srv://")
_LOGIN = ("host", "port", "user", "password", "auth_source", "auth_mechanism", "replica_set")


def _is_uri(uri: Secret) -> Secret:
    if not uri.get_secret_value().startswith(_SCHEMES):
        raise ValueError("must begin with mongodb:// or mongodb+srv://")
    return uri


def _is_filter(query: str) -> str:
    try:
        content = json.loads(query)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError('must be a filter as Extended JSON; such as {"state": "paid"}')
    return query


def _is_namespace(name: str) -> str:
    database, dot, collection = name.partition(".")
    if not (database and dot and collection):
        raise ValueError("must name a database and a collection; such as shop.orders")
    return name


Uri = Annotated[Secret, AfterValidator(_is_uri), in_schema(r"^mongodb(\+srv)?://", is_secret=True)]
Filter = Annotated[Text, AfterValidator(_is_filter)]
Namespace = Annotated[Text, AfterValidator(_is_namespace)]


class MongodbSource(Spec):
    """Databases of a MongoDB server in the archive format of mongodump.

    `mongorestore --archive` loads it. Patterns of collections with a dot are matched against
    `database.collection`, others against the name of the collection.
    """

    suggested: ClassVar[tuple[str, ...]] = ("user", "password")

    type: Literal["mongodb"]
    uri: Uri | None = Field(
        None,
        description="Connection string, also `mongodb+srv://`, instead of host, port, user and "
        "the like; its options about TLS count unless `tls` is set.",
        examples=["mongodb://backup:secret@db-1,db-2/?replicaSet=rs0"],
    )
    host: Text = Field("localhost", description="Name or address of the server.")
    port: int = Field(27017, ge=1, le=65535, description="TCP port of the server.")
    user: Text | None = Field(
        None,
        description="User, who needs the role `backup`; with X.509: that of the certificate.",
        examples=["backup"],
    )
    password: Secret | None = Field(None, description="Password of the user.")
    auth_source: Text | None = Field(
        None, description="Database that knows the user; default: `admin`.", examples=["admin"]
    )
    auth_mechanism: Literal["SCRAM-SHA-1", "SCRAM-SHA-256", "MONGODB-X509", "PLAIN"] | None = Field(
        None, description="How to log in; default: SCRAM, in the strongest form the server has."
    )
    replica_set: Text | None = Field(
        None,
        description="Name of the replica set that the server is a member of: the others are then "
        "found, and `read_preference` chooses. Without it, the named server itself is read.",
        examples=["rs0"],
    )
    tls: Tls | None = Field(None, description="Encryption of the connections.")
    read_preference: Literal[
        "primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest"
    ] = Field(
        "secondaryPreferred",
        description="Which member of a replica set is read; it is the same one for a whole "
        "artifact.",
    )
    databases: list[Text] | Literal["all"] = Field(
        "all",
        description="Databases to dump, also as glob patterns; `all` is every one but `admin`, "
        "`config` and `local`, which are there for the server itself.",
        examples=[["shop", "crm_*"]],
    )
    exclude: list[Text] = Field(
        default_factory=list,
        description="Glob patterns of databases that are left out.",
        examples=[["test_*"]],
    )
    collections: list[Text] = Field(
        default_factory=list,
        description="Dump only collections and views that match one of these glob patterns.",
        examples=[["shop.order*"]],
    )
    exclude_collections: list[Text] = Field(
        default_factory=list,
        description="Glob patterns of collections and views that are left out.",
        examples=[["shop.sessions", "*_cache"]],
    )
    query: dict[Namespace, Filter] = Field(
        default_factory=dict,
        description="Dump only the documents that match: a filter as Extended JSON for "
        "`database.collection`.",
        examples=[{"shop.orders": '{"state": "paid"}'}],
    )
    artifact: Literal["per_database", "single"] = Field(
        "per_database", description="One artifact for each database, or a single one for all."
    )
    users: bool = Field(
        False,
        description="Also users and roles of all databases: an artifact `users-and-roles`, or a "
        "part of the single one, in which mongodump always has them.",
    )
    oplog: bool = Field(
        False,
        description="Add the changes that were made during the dump, so that `mongorestore "
        "--oplogReplay` brings back the moment of its end. Needs a replica set, all databases and "
        "`artifact: single`.",
    )
    parallel: int = Field(
        2,
        ge=1,
        le=32,
        description="Collections that are read at the same time; takes memory for each.",
    )
    method: Literal["native", "client"] = Field(
        "native", description="`native` needs no program; `client` runs `mongodump --archive`."
    )
    connect_timeout: Duration = Field(
        "10s", validate_default=True, description="Give up when no server is found in this time."
    )
    timeout: Duration = Field(
        "5m", validate_default=True, description="Give up when the server is silent for so long."
    )

    @model_validator(mode="after")
    def _fit_together(self) -> MongodbSource:
        given = self.model_fields_set
        if self.uri is not None and given & set(_LOGIN):
            names = ", ".join(sorted(given & set(_LOGIN)))
            raise ValueError(f"uri has no use beside {names}; keep one of them")
        if self.password is not None and self.user is None:
            raise ValueError("password needs user; set it too")
        if self.databases == []:
            raise ValueError("databases must not be empty; name some, or write all")
        self._check_oplog()
        self._check_client()
        return self

    def _check_oplog(self) -> None:
        if not self.oplog:
            return
        if self.artifact != "single":
            raise ValueError("oplog needs artifact single; the changes are about all databases")
        if self.databases != "all" or self._chooses():
            raise ValueError("oplog needs all databases and collections; their changes would miss")

    def _check_client(self) -> None:
        if self.method != "client":
            return
        if self.query or self.collections:
            raise ValueError("query and collections need method native; mongodump takes one only")
        if self.artifact == "single" and (self.databases != "all" or self._chooses()):
            raise ValueError("a choice needs artifact per_database or method native")
        if self.users and self.artifact != "single":
            raise ValueError("users needs artifact single or method native")

    def _chooses(self) -> bool:
        return bool(self.exclude or self.collections or self.exclude_collections or self.query)
