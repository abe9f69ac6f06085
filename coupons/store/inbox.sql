-- accept: store a command; returns no row if its id is known
INSERT INTO command (id, type, digest) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING RETURNING id;

-- reject: store a command with the reason why it was rejected
INSERT INTO command (id, type, digest, rejection_reason) VALUES ($1, $2, $3, $4) ON CONFLICT (id) DO NOTHING;

-- known: the command with this id
SELECT type, digest, rejection_reason FROM command WHERE id = $1;
