-- of_list: the shapes of list $1; no row if they are not known
SELECT shapes FROM list_shapes WHERE list_id = $1;

-- of_others: the shapes of the newest lists that an operator can import into, without list $1
SELECT l.name, s.shapes FROM coupon_list l JOIN list_shapes s ON s.list_id = l.id
WHERE l.id <> $1 AND l.archived_at IS NULL AND l.total >= $2 ORDER BY l.id DESC LIMIT $3;

-- list_unknown: the newest lists whose shapes are not known although they have codes, list $1 first
SELECT id FROM coupon_list l
WHERE total >= $2 AND archived_at IS NULL AND NOT EXISTS (SELECT FROM list_shapes WHERE list_id = l.id)
ORDER BY id = $1 DESC, id DESC LIMIT $3;

-- sample: up to $2 codes of list $1, half of them of those that no sendout has
(SELECT code FROM coupon WHERE list_id = $1 AND sendout_id IS NULL ORDER BY id DESC LIMIT $2 / 2)
UNION ALL
(SELECT code FROM coupon WHERE list_id = $1 AND sendout_id IS NOT NULL
 ORDER BY sendout_id DESC, delivery_number DESC LIMIT $2 / 2);

-- learn: store the shapes of list $1, unless an import has stored them since
INSERT INTO list_shapes (list_id, shapes) VALUES ($1, $2) ON CONFLICT (list_id) DO NOTHING;

-- store: store the shapes of list $1
INSERT INTO list_shapes (list_id, shapes) VALUES ($1, $2) ON CONFLICT (list_id) DO UPDATE SET shapes = $2;

-- forget: forget the shapes of list $1, because codes were removed; they are learned from a sample when they are needed
DELETE FROM list_shapes WHERE list_id = $1;
