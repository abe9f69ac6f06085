-- A recipient takes codes only of the lists that their mail needs. Sendouts from before keep NULL: all lists.
ALTER TABLE delivery ADD COLUMN lists bigint[];
