"""The tables of the two files, as numbered migrations.

The rule that must not be broken: a migration that has landed is never edited; a change is a new one, appended. Whatever
an older version wrote must come through it, since `migrate` runs it on data folders of every age. `assent.db` holds
people, the ledger and logins; `spool.db` the messages that we answer for. No transaction spans both.
"""

from __future__ import annotations

PEOPLE = (
    """
    CREATE TABLE people (
        address_id BLOB PRIMARY KEY,
        address TEXT,
        standing TEXT NOT NULL,
        created_at TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE address_keys (
        kid INTEGER NOT NULL,
        digest BLOB NOT NULL,
        address_id BLOB NOT NULL REFERENCES people,
        PRIMARY KEY (kid, digest)
    ) WITHOUT ROWID;
    CREATE TABLE broad_keys (
        kid INTEGER NOT NULL,
        digest BLOB NOT NULL,
        address_id BLOB NOT NULL REFERENCES people,
        PRIMARY KEY (kid, digest, address_id)
    ) WITHOUT ROWID;
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        type TEXT NOT NULL,
        address_id BLOB NOT NULL,
        at TEXT NOT NULL,
        recorded_at TEXT NOT NULL,
        topic TEXT NOT NULL,
        scope TEXT,
        facts TEXT NOT NULL,
        commitment BLOB NOT NULL,
        hash BLOB NOT NULL
    );
    CREATE INDEX events_by_person ON events (address_id, seq);
    CREATE TABLE event_personal (
        seq INTEGER PRIMARY KEY REFERENCES events,
        salt BLOB NOT NULL,
        fields TEXT NOT NULL
    );
    CREATE TABLE segments (
        chain TEXT NOT NULL,
        number INTEGER NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        count INTEGER NOT NULL,
        root TEXT NOT NULL,
        previous TEXT NOT NULL,
        sealed_at TEXT NOT NULL,
        signature BLOB NOT NULL,
        source INTEGER NOT NULL,
        PRIMARY KEY (chain, number)
    ) WITHOUT ROWID;
    CREATE TABLE topics (
        number INTEGER PRIMARY KEY,
        slug TEXT NOT NULL UNIQUE
    );
    CREATE TABLE notices (
        number INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        topic TEXT NOT NULL,
        text TEXT NOT NULL,
        url TEXT NOT NULL,
        control TEXT NOT NULL,
        valid_from TEXT NOT NULL,
        valid_until TEXT
    );
    CREATE TABLE logins (
        name TEXT PRIMARY KEY,
        secret TEXT NOT NULL,
        streams TEXT NOT NULL,
        contact TEXT NOT NULL,
        networks TEXT NOT NULL,
        created_at TEXT NOT NULL,
        disabled INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE logins ADD COLUMN tool_hosts TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE logins ADD COLUMN test_recipients TEXT NOT NULL DEFAULT '[]';
    CREATE TABLE stream_states (
        stream TEXT PRIMARY KEY,
        changes INTEGER NOT NULL,
        is_paused INTEGER NOT NULL,
        why TEXT NOT NULL,
        by TEXT NOT NULL,
        at TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE imports (
        number INTEGER PRIMARY KEY,
        file TEXT NOT NULL,
        format TEXT NOT NULL,
        by TEXT NOT NULL,
        state TEXT NOT NULL,
        counts TEXT NOT NULL,
        leans_on TEXT NOT NULL,
        at TEXT NOT NULL
    );
    CREATE TABLE import_chunks (
        import INTEGER NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (import, first)
    ) WITHOUT ROWID;
    CREATE TABLE digest_entries (
        digest BLOB NOT NULL,
        scope TEXT NOT NULL,
        topic TEXT NOT NULL,
        import INTEGER NOT NULL,
        PRIMARY KEY (digest, scope, topic, import)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE api_tokens (
        name TEXT PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        scopes TEXT NOT NULL,
        created_at TEXT NOT NULL,
        expires_at TEXT,
        revoked INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE idempotency_keys (
        holder TEXT NOT NULL,
        key TEXT NOT NULL,
        request BLOB NOT NULL,
        events TEXT NOT NULL,
        at TEXT NOT NULL,
        PRIMARY KEY (holder, key)
    ) WITHOUT ROWID;
    CREATE INDEX idempotency_keys_by_time ON idempotency_keys (at);
    CREATE INDEX people_suppressed ON people (address_id) WHERE json_array_length(standing, '$.suppressions') > 0;
    """,
    """
    CREATE TABLE policies (
        version TEXT PRIMARY KEY,
        effective TEXT NOT NULL,
        reconsent TEXT NOT NULL,
        text TEXT NOT NULL,
        published_at TEXT NOT NULL,
        by TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE redactions (
        seq INTEGER PRIMARY KEY,
        signature BLOB NOT NULL
    );
    CREATE TABLE backups (
        path TEXT PRIMARY KEY,
        made_at TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE breaches (
        name TEXT PRIMARY KEY,
        what TEXT NOT NULL,
        known_at TEXT NOT NULL,
        reported_at TEXT,
        by TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX events_requests ON events (seq)
        WHERE type IN ('RIGHT_REQUESTED', 'RIGHT_EXTENDED', 'RIGHT_ANSWERED');
    """,
    """
    CREATE TABLE policy_notice_texts (
        digest TEXT PRIMARY KEY,
        text TEXT NOT NULL,
        reader BLOB
    ) WITHOUT ROWID;
    CREATE INDEX policy_notice_texts_by_reader ON policy_notice_texts (reader) WHERE reader IS NOT NULL;
    CREATE INDEX events_policy_notices ON events (seq) WHERE type IN ('POLICY_NOTICE', 'POLICY_NOTICE_ENDED');
    """,
    """
    ALTER TABLE notices ADD COLUMN version TEXT NOT NULL DEFAULT '1';
    ALTER TABLE notices ADD COLUMN language TEXT NOT NULL DEFAULT 'en';
    ALTER TABLE notices ADD COLUMN kind TEXT NOT NULL DEFAULT '';
    ALTER TABLE notices ADD COLUMN method TEXT NOT NULL DEFAULT '';
    ALTER TABLE notices ADD COLUMN controllers TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE notices ADD COLUMN policy_version TEXT NOT NULL DEFAULT '';
    ALTER TABLE notices ADD COLUMN states TEXT NOT NULL DEFAULT '[]';
    """,
    """
    ALTER TABLE imports ADD COLUMN completed_at TEXT;
    UPDATE imports SET completed_at = at WHERE state = 'complete';
    """,
    """
    CREATE INDEX people_mailboxes ON people (
        replace(replace(replace(
            substr(lower(address), 1, min(instr(address, '@'), instr(address || '+', '+')) - 1),
        '.', ''), '-', ''), '_', '') || substr(lower(address), instr(address, '@'))
    ) WHERE json_array_length(standing, '$.suppressions') > 0
        AND substr(lower(address), instr(address, '@') + 1) IN (
            'gmail.com', 'googlemail.com', 'proton.me', 'protonmail.com', 'pm.me', 'outlook.com', 'hotmail.com',
            'live.com', 'msn.com', 'icloud.com', 'me.com', 'mac.com', 'fastmail.com'
        );
    """,
    """
    CREATE TABLE told_of_erasures (
        webhook TEXT PRIMARY KEY
    ) WITHOUT ROWID;
    CREATE TABLE farewells (
        seq INTEGER PRIMARY KEY REFERENCES events,
        address TEXT NOT NULL
    );
    CREATE TABLE stream_pauses (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        stream TEXT NOT NULL,
        why TEXT NOT NULL,
        by TEXT NOT NULL,
        at TEXT NOT NULL
    );
    """,
)

SPOOL = (
    """
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY,
        envelope TEXT NOT NULL,
        size INTEGER NOT NULL,
        body BLOB
    );
    CREATE TABLE recipients (
        message_id INTEGER NOT NULL,
        n INTEGER NOT NULL,
        address TEXT NOT NULL,
        options TEXT NOT NULL,
        who TEXT NOT NULL,
        decision TEXT NOT NULL,
        outcome TEXT NOT NULL,
        priority INTEGER NOT NULL,
        attempts INTEGER NOT NULL,
        due INTEGER NOT NULL,
        owner TEXT,
        reply TEXT NOT NULL,
        PRIMARY KEY (message_id, n)
    ) WITHOUT ROWID;
    CREATE INDEX recipients_due ON recipients (priority, due) WHERE owner IS NULL AND due > 0;
    CREATE INDEX recipients_owned ON recipients (owner) WHERE owner IS NOT NULL;
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        lines BLOB NOT NULL
    );
    """,
    """
    ALTER TABLE recipients ADD COLUMN stream TEXT NOT NULL DEFAULT '';
    ALTER TABLE messages ADD COLUMN warned INTEGER NOT NULL DEFAULT 0;
    UPDATE recipients SET stream =
        (SELECT json_extract(envelope, '$.stream') FROM messages WHERE messages.id = recipients.message_id);
    DROP INDEX recipients_due;
    CREATE INDEX recipients_due ON recipients (priority, stream, due) WHERE owner IS NULL AND due > 0;
    CREATE INDEX recipients_recalled ON recipients (owner, message_id) WHERE owner IS NOT NULL AND due = 0;
    """,
    """
    CREATE TABLE unidentified (
        decision TEXT PRIMARY KEY,
        message TEXT NOT NULL,
        address TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE reported_campaigns (
        login TEXT NOT NULL,
        stream TEXT NOT NULL,
        campaign TEXT NOT NULL,
        latest TEXT NOT NULL,
        PRIMARY KEY (login, stream, campaign)
    ) WITHOUT ROWID;
    CREATE TABLE reported_refusals (
        login TEXT NOT NULL,
        stream TEXT NOT NULL,
        campaign TEXT NOT NULL,
        address TEXT NOT NULL,
        reason TEXT NOT NULL,
        decision TEXT NOT NULL,
        PRIMARY KEY (login, stream, campaign, address)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE endings (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        address TEXT NOT NULL,
        line BLOB NOT NULL
    );
    CREATE TABLE announced (
        source TEXT PRIMARY KEY,
        position INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE calls (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        target TEXT NOT NULL,
        subject TEXT NOT NULL,
        content TEXT NOT NULL,
        is_lasting INTEGER NOT NULL,
        since INTEGER NOT NULL,
        due INTEGER NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        answer TEXT NOT NULL DEFAULT ''
    );
    CREATE INDEX calls_by_target ON calls (target);
    CREATE INDEX calls_by_subject ON calls (subject, target);
    CREATE TABLE resting_targets (
        target TEXT PRIMARY KEY,
        until INTEGER NOT NULL,
        gone_at TEXT
    ) WITHOUT ROWID;
    CREATE TABLE tool_links (
        who TEXT NOT NULL,
        topic TEXT NOT NULL,
        login TEXT NOT NULL,
        url TEXT NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (who, topic, login)
    ) WITHOUT ROWID;
    """,
    """
    CREATE TABLE depth (
        recipients INTEGER NOT NULL
    );
    INSERT INTO depth SELECT count(*) FROM recipients;
    CREATE TRIGGER recipients_come AFTER INSERT ON recipients BEGIN
        UPDATE depth SET recipients = recipients + 1;
    END;
    CREATE TRIGGER recipients_go AFTER DELETE ON recipients BEGIN
        UPDATE depth SET recipients = recipients - 1;
    END;
    """,
    """
    ALTER TABLE recipients ADD COLUMN server TEXT NOT NULL DEFAULT '';
    """,
)

DECISIONS = (
    """
    CREATE TABLE decisions (
        seq INTEGER PRIMARY KEY,
        id TEXT NOT NULL,
        who TEXT NOT NULL,
        message TEXT NOT NULL,
        message_id TEXT NOT NULL,
        line BLOB NOT NULL
    );
    CREATE UNIQUE INDEX decisions_by_id ON decisions (id);
    CREATE INDEX decisions_by_who ON decisions (who);
    CREATE INDEX decisions_by_message ON decisions (message);
    CREATE INDEX decisions_by_message_id ON decisions (message_id);
    """,
)
