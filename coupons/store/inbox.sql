-- accept: note a command; no row if its id is known
INSERT INTO command (id, type, digest) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING RETURNING id;

-- known: the command that has this id
SELECT type, digest FROM command WHERE id = $1;
