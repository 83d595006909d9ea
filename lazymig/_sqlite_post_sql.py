"""The SQL of travelling calls on SQLite; see `lazymig._sqlite_sql`."""

from __future__ import annotations

from lazymig._sql_post import PostDialect
from lazymig._sqlite_sql import ALIVE

# A call from before a reboot, when the clock began anew, lies in the future and is not taken.
_TAKEABLE = f"""
    SELECT number FROM call
    WHERE status = 0 AND action <> '' AND since <= :now AND :now < until AND (chain <> '[]' OR NOT :nested)
    AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node) AND (
        target = :node
        OR (target IS NULL OR target_until <= :now OR target NOT IN ({ALIVE}))
        AND EXISTS (SELECT 1 FROM node WHERE incarnation = :node AND NOT draining)
        AND EXISTS (
            SELECT 1 FROM offer
            WHERE incarnation = :node AND offer.type = call.type AND offer.action = call.action AND call.needs < below
            AND supported >= COALESCE((SELECT version FROM policy WHERE policy.type = call.type), 0)
        )
    )
    ORDER BY number LIMIT :limit
"""  # noqa: S608  (a constant is put in, no value)

_CALL = "number, id, type, actor, action, arguments, sender, chain, traceparent, needs, target, takes"

_STATE = f"status, result, taker, COALESCE(taker, '') IN ({ALIVE}), needs, target"

POST_DIALECT = PostDialect(
    send=f"""
        INSERT INTO call
            (id, type, actor, action, arguments, sender, chain, traceparent, needs, target, since, until, status)
        SELECT :call, :type, :id, :action, :arguments, :sender, :chain, :traceparent, :needs,
            COALESCE(:target, (SELECT owner FROM actor WHERE type = :type AND id = :id AND owner IN ({ALIVE}))),
            :now, :now + :wait, 0
        WHERE :action = '' OR NOT EXISTS (
            SELECT 1 FROM call WHERE status = 0 AND type = :type AND actor = :id AND action <> '' AND :now < until
            LIMIT 1 OFFSET :others
        )
        ON CONFLICT (id) DO NOTHING
        RETURNING id
    """,  # noqa: S608  (a constant is put in, no value)
    takeable=_TAKEABLE.replace(":limit", "1").replace(":nested", "false"),
    wanted="""
        SELECT call.type, call.actor FROM call JOIN actor ON actor.type = call.type AND actor.id = call.actor
        WHERE status = 0 AND action = '' AND since <= :now AND :now < until AND owner = :node
    """,
    answers=f"""
        SELECT id, {_STATE} FROM call
        WHERE sender = :sender AND (status IN (1, 2, 3) OR status = 0 AND until <= :now)
    """,  # noqa: S608
    fleet="SELECT changes FROM fleet",
    taken_ids="SELECT id, takes FROM call WHERE status = 1 AND taker = :node",
    take=f"""
        UPDATE call SET status = 1, taker = :node, takes = takes + 1 WHERE number IN ({_TAKEABLE})
        RETURNING {_CALL}
    """,  # noqa: S608
    taken=f"SELECT {_CALL} FROM call WHERE status = 1 AND taker = :node",  # noqa: S608
    answer="""
        UPDATE call SET status = 2, result = :result, until = :now + :keep
        WHERE id = :call AND status = 1 AND taker = :node AND takes = :takes RETURNING id
    """,
    forward="""
        UPDATE call SET status = 0, taker = NULL, target = :target, target_until = :now + :seconds,
            needs = MAX(needs, :needs)
        WHERE id = :call AND status = 1 AND taker = :node AND takes = :takes RETURNING id
    """,
    cancel="""
        INSERT INTO call (id, type, actor, action, arguments, sender, chain, needs, since, until, status)
        VALUES (:call, '', '', '', x'', :sender, '[]', 0, :now, :now + :keep, 4)
        ON CONFLICT (id) DO UPDATE SET status = 4, until = excluded.until WHERE status = 0
    """,
    cancel_stored="UPDATE call SET status = 4, until = :now + :keep WHERE id = :call AND status = 0",
    lose=f"""
        UPDATE call SET status = 3, until = :now + :keep
        WHERE id = :call AND status = 1 AND taker NOT IN ({ALIVE})
    """,  # noqa: S608
    state=f"SELECT {_STATE} FROM call WHERE id = :call",  # noqa: S608
    remove="DELETE FROM call WHERE id = :call",
    tidy_calls=f"""
        DELETE FROM call
        WHERE (since > :now OR until + CASE WHEN status IN (0, 1) THEN :keep ELSE 0 END <= :now)
        AND NOT (status = 1 AND taker IN ({ALIVE}))
    """,  # noqa: S608
    silent_nodes="SELECT incarnation FROM heartbeat WHERE at > :now OR at + :leases * lease <= :now",
)
