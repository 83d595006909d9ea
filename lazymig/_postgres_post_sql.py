"""The SQL of travelling calls on PostgreSQL; see `lazymig._postgres_sql` for the rules."""

from __future__ import annotations

from dataclasses import fields

from lazymig._postgres_sql import ALIVE, IS_REGISTERED, NOW, UNHEARD, in_schema
from lazymig._sql_post import PostDialect

NOTIFIED_NODES = 50
"""In larger fleets notifications cost more than they quicken: with 500 listeners a server was measured to lose up to
98 % of its commits."""

_FEW_NODES = f"(SELECT count(*) FROM lazymig.node) <= {NOTIFIED_NODES}"  # noqa: S608  (likewise)

LISTEN = "LISTEN lazymig_call"
"""One channel a database: what is told names a node or a sender, which are unique."""

_IS_TAKEABLE = f"""
    status = 0 AND action <> '' AND since <= {NOW} AND {NOW} < until
    AND {IS_REGISTERED} AND {UNHEARD} IS NULL AND (
        target = %(node)s
        OR (target IS NULL OR target_until <= {NOW} OR target NOT IN ({ALIVE}))
        AND EXISTS (SELECT 1 FROM lazymig.node WHERE incarnation = %(node)s AND NOT draining)
        AND EXISTS (
            SELECT 1 FROM lazymig.offer WHERE incarnation = %(node)s
            AND offer.type = call.type AND offer.action = call.action AND call.needs < below
            AND supported >= COALESCE((SELECT version FROM lazymig.policy WHERE policy.type = call.type), 0)
        )
    )
"""  # noqa: S608  (likewise)

_STATE = f"status, result, taker, COALESCE(taker, '') IN ({ALIVE}), needs, target"

_CALL = "number, id, type, actor, action, arguments, sender, chain, traceparent, needs, target, takes"

POST_DIALECT = PostDialect(
    send=f"""
        INSERT INTO lazymig.call
            (id, type, actor, action, arguments, sender, chain, traceparent, needs, target, since, until, status)
        SELECT %(call)s, %(type)s::text, %(id)s::text, %(action)s::text, %(arguments)s::bytea, %(sender)s, %(chain)s,
            %(traceparent)s, %(needs)s, COALESCE(%(target)s::text, (
                SELECT owner FROM lazymig.actor WHERE type = %(type)s AND id = %(id)s AND owner IN ({ALIVE})
            )),
            {NOW}, {NOW} + %(wait)s, 0
        WHERE %(action)s = '' OR NOT EXISTS (
            SELECT 1 FROM lazymig.call
            WHERE status = 0 AND type = %(type)s AND actor = %(id)s AND action <> '' AND {NOW} < until
            LIMIT 1 OFFSET %(others)s
        )
        ON CONFLICT (id) DO NOTHING
        RETURNING id
    """,  # noqa: S608  (constants are put in, no value)
    takeable=f"SELECT 1 FROM lazymig.call WHERE {_IS_TAKEABLE} LIMIT 1",  # noqa: S608
    wanted=f"""
        SELECT call.type, call.actor
        FROM lazymig.call JOIN lazymig.actor ON actor.type = call.type AND actor.id = call.actor
        WHERE status = 0 AND action = '' AND since <= {NOW} AND {NOW} < until AND owner = %(node)s
    """,  # noqa: S608
    answers=f"""
        SELECT id, {_STATE} FROM lazymig.call
        WHERE sender = %(sender)s AND (status IN (1, 2, 3) OR status = 0 AND until <= {NOW})
    """,  # noqa: S608
    fleet="SELECT changes FROM lazymig.fleet",
    taken_ids="SELECT id, takes FROM lazymig.call WHERE status = 1 AND taker = %(node)s",
    take=f"""
        UPDATE lazymig.call SET status = 1, taker = %(node)s, takes = takes + 1
        WHERE number = ANY (ARRAY(
            SELECT number FROM lazymig.call
            WHERE {_IS_TAKEABLE} AND (chain <> '[]' OR NOT %(nested)s)
            ORDER BY number LIMIT %(limit)s FOR UPDATE OF call SKIP LOCKED
        ))
        RETURNING {_CALL}
    """,  # noqa: S608
    taken=f"SELECT {_CALL} FROM lazymig.call WHERE status = 1 AND taker = %(node)s",  # noqa: S608
    answer=f"""
        UPDATE lazymig.call SET status = 2, result = %(result)s, until = {NOW} + %(keep)s
        WHERE id = %(call)s AND status = 1 AND taker = %(node)s AND takes = %(takes)s RETURNING id
    """,  # noqa: S608
    forward=f"""
        UPDATE lazymig.call SET status = 0, taker = NULL, target = %(target)s,
            target_until = {NOW} + %(seconds)s::float8, needs = greatest(needs, %(needs)s)
        WHERE id = %(call)s AND status = 1 AND taker = %(node)s AND takes = %(takes)s RETURNING id
    """,  # noqa: S608
    cancel=f"""
        INSERT INTO lazymig.call (id, type, actor, action, arguments, sender, chain, needs, since, until, status)
        VALUES (%(call)s, '', '', '', '', %(sender)s, '[]', 0, {NOW}, {NOW} + %(keep)s, 4)
        ON CONFLICT (id) DO UPDATE SET status = 4, until = excluded.until WHERE call.status = 0
    """,  # noqa: S608
    cancel_stored=f"""
        UPDATE lazymig.call SET status = 4, until = {NOW} + %(keep)s WHERE id = %(call)s AND status = 0
    """,  # noqa: S608
    lose=f"""
        UPDATE lazymig.call SET status = 3, until = {NOW} + %(keep)s
        WHERE id = %(call)s AND status = 1 AND taker NOT IN ({ALIVE})
    """,  # noqa: S608
    state=f"SELECT {_STATE} FROM lazymig.call WHERE id = %(call)s",  # noqa: S608
    remove="DELETE FROM lazymig.call WHERE id = %(call)s",
    tidy_calls=f"""
        DELETE FROM lazymig.call
        WHERE until + CASE WHEN status IN (0, 1) THEN %(keep)s::float8 ELSE 0 END <= {NOW}
        AND NOT (status = 1 AND taker IN ({ALIVE}))
    """,  # noqa: S608
    silent_nodes=f"""
        SELECT incarnation FROM lazymig.node LEFT JOIN lazymig.heartbeat USING (incarnation)
        WHERE COALESCE(at, (SELECT until FROM lazymig.recovery)) + %(leases)s * node.lease <= {NOW}
    """,  # noqa: S608
    ring_taker=f"""
        SELECT pg_notify('lazymig_call', COALESCE(target, '')) FROM lazymig.call
        WHERE id = %(call)s AND status = 0 AND {_FEW_NODES}
    """,  # noqa: S608
    ring_sender=f"""
        SELECT pg_notify('lazymig_call', sender) FROM lazymig.call
        WHERE id = %(call)s AND status = 2 AND {_FEW_NODES}
    """,  # noqa: S608
)


def post_dialect(schema: str) -> PostDialect:
    """Return the statements for the travelling calls of a schema."""
    found = {field.name: in_schema(getattr(POST_DIALECT, field.name), schema) for field in fields(PostDialect)}
    return PostDialect(**found)
