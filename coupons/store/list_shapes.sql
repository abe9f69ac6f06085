-- of_list: the shapes of list $1; no row if they are not known
SELECT shapes FROM list_shapes WHERE list_id = $1;

-- others: up to $3 of the newest lists with at least $2 codes that an operator can import into, without list $1
SELECT l.id, l.name, s.shapes FROM coupon_list l LEFT JOIN list_shapes s ON s.list_id = l.id
WHERE l.id <> $1 AND l.archived_at IS NULL AND l.total >= $2 ORDER BY l.id DESC LIMIT $3;

-- codes: the name and the number of codes of list $1
SELECT name, total FROM coupon_list WHERE id = $1;

-- sample: up to $2 codes of list $1, half of them from those that no sendout has; both halves are read along an index
(SELECT code FROM coupon WHERE list_id = $1 AND sendout_id IS NULL ORDER BY id DESC LIMIT $2::integer / 2)
UNION ALL
(SELECT code FROM coupon WHERE list_id = $1 AND sendout_id IS NOT NULL
 ORDER BY sendout_id DESC, delivery_number DESC LIMIT $2::integer / 2);

-- learn: store the shapes of list $1, unless an import has stored them since
INSERT INTO list_shapes (list_id, shapes) VALUES ($1, $2) ON CONFLICT (list_id) DO NOTHING;

-- store: store the shapes of list $1
INSERT INTO list_shapes (list_id, shapes) VALUES ($1, $2) ON CONFLICT (list_id) DO UPDATE SET shapes = excluded.shapes;

-- forget: forget the shapes of list $1
DELETE FROM list_shapes WHERE list_id = $1;
