-- The shop as one who knows PostgreSQL would build it for speed: no index, key or check that the work does not need, rows that are
-- updated in place (HOT: no indexed column changes, and the pages have room), no foreign keys.
CREATE TABLE stock (
	sku       text COLLATE "C" PRIMARY KEY,
	on_hand   bigint NOT NULL,
	reserved  bigint NOT NULL,
	allocated bigint NOT NULL
) WITH (fillfactor = 25, autovacuum_vacuum_scale_factor = 0.2, autovacuum_vacuum_threshold = 5000);

CREATE SEQUENCE order_id CACHE 100;

CREATE TABLE orders (
	id       bigint PRIMARY KEY,
	customer text COLLATE "C" NOT NULL,
	currency char(3) NOT NULL,
	total    bigint NOT NULL,
	state    "char" NOT NULL, -- p placed, c confirmed
	placed   timestamptz NOT NULL
) WITH (fillfactor = 60);

CREATE TABLE order_lines (
	order_id bigint NOT NULL,
	no       smallint NOT NULL,
	quantity integer NOT NULL,
	price    bigint NOT NULL,
	sku      text COLLATE "C" NOT NULL,
	PRIMARY KEY (order_id, no)
);

CREATE TABLE payments (
	order_id bigint PRIMARY KEY,
	amount   bigint NOT NULL,
	state    "char" NOT NULL -- a authorized
);

CREATE TABLE outbox (
	id       bigint GENERATED ALWAYS AS IDENTITY (CACHE 100),
	order_id bigint NOT NULL,
	type     text NOT NULL
);

-- place reserves the stock last, for the row of a hot SKU is locked from there to the end of the commit. The caller lists the SKUs in one
-- order for all, so that two orders never wait for each other in a circle, and the ones in demand at the end, so that
-- nothing else is waited for while they are locked.
CREATE FUNCTION place(p_customer text, p_skus text[], p_quantities int[], p_prices bigint[]) RETURNS bigint
LANGUAGE plpgsql AS $$
DECLARE
	v_id    bigint := nextval('order_id');
	v_total bigint := 0;
BEGIN
	FOR i IN 1 .. array_length(p_skus, 1) LOOP
		v_total := v_total + p_quantities[i] * p_prices[i];
	END LOOP;
	INSERT INTO orders VALUES (v_id, p_customer, 'EUR', v_total, 'p', now());
	INSERT INTO order_lines (order_id, no, quantity, price, sku)
		SELECT v_id, l.no, l.quantity, l.price, l.sku
		FROM unnest(p_skus, p_quantities, p_prices) WITH ORDINALITY AS l (sku, quantity, price, no);
	INSERT INTO outbox (order_id, type) VALUES (v_id, 'order.placed');
	FOR i IN 1 .. array_length(p_skus, 1) LOOP
		UPDATE stock SET reserved = reserved + p_quantities[i]
			WHERE sku = p_skus[i] AND on_hand - reserved - allocated >= p_quantities[i];
		IF NOT FOUND THEN
			RAISE EXCEPTION 'out of stock: %', p_skus[i] USING ERRCODE = 'P0001';
		END IF;
	END LOOP;
	RETURN v_id;
END $$;

-- confirm books the payment and turns what is reserved into what is allocated, in the order of the lines (OFFSET keeps it).
CREATE FUNCTION confirm(p_id bigint) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
	v_total bigint;
BEGIN
	UPDATE orders SET state = 'c' WHERE id = p_id AND state = 'p' RETURNING total INTO v_total;
	IF NOT FOUND THEN
		RAISE EXCEPTION 'order % is not there to be confirmed', p_id USING ERRCODE = 'P0002';
	END IF;
	INSERT INTO payments VALUES (p_id, v_total, 'a');
	INSERT INTO outbox (order_id, type) VALUES (p_id, 'order.confirmed');
	UPDATE stock s SET reserved = reserved - l.quantity, allocated = allocated + l.quantity
		FROM (SELECT sku, quantity FROM order_lines WHERE order_id = p_id ORDER BY no OFFSET 0) l WHERE s.sku = l.sku;
END $$;
