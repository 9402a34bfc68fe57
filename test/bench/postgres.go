package main

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"hanse/internal/bench"
)

//go:embed schema.sql
var schema string

// postgresSettings is what PostgreSQL runs with: as durable as it comes, and as fast as that allows on two cores.
var postgresSettings = map[string]string{
	// Durable: an answer means that the commit is on disk, and a torn page is repaired.
	"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on",
	// No replica reads the log, so that it may leave out what only a replica needs.
	"wal_level": "minimal", "max_wal_senders": "0",
	// Room: neither a checkpoint nor a new log segment falls into a measurement.
	"shared_buffers": "2GB", "wal_buffers": "64MB", "max_wal_size": "16GB", "min_wal_size": "4GB",
	"checkpoint_timeout": "30min", "checkpoint_completion_target": "0.9", "wal_compression": "lz4",
	// The log is written out by those who commit; the background writers stay out of their way.
	"wal_writer_delay": "200ms", "bgwriter_lru_maxpages": "0",
	// Commits of many clients share a sync anyway; an added delay is tried with -commit-delay.
	"commit_siblings": "5",
	// Vacuum keeps up without taking the cores.
	"autovacuum": "on", "autovacuum_naptime": "5s", "autovacuum_vacuum_cost_delay": "2ms", "autovacuum_vacuum_cost_limit": "2000",
	// Small statements: what plans large ones is off. Plans are made while the tables are empty, and a sequential scan that was right
	// then would stay.
	"enable_seqscan": "off", "enable_bitmapscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off",
	"jit": "off", "max_parallel_workers_per_gather": "0", "random_page_cost": "1.1", "track_activities": "off",
	"huge_pages": "try", "max_connections": "160", "listen_addresses": "", "logging_collector": "off", "log_min_messages": "warning",
}

// postgresServer is a PostgreSQL server of our own in a temporary directory.
type postgresServer struct {
	cmd *exec.Cmd
	dir string
	log *bytes.Buffer
}

const installPostgres = "install it (Debian: apt-get install postgresql), or leave it out: -systems hanse"

// postgresProgram finds a program of the server; Debian keeps them out of the path.
func postgresProgram(name string) (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err == nil && len(found) > 0 {
		version := func(path string) int {
			n, _ := strconv.Atoi(strings.Split(path, "/")[4]) // 0 sorts first
			return n
		}
		return slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) }), nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("there is no PostgreSQL server here: %s", installPostgres)
	}
	return path, nil
}

// unprivileged makes cmd run as the user postgres when we are root, whom the server refuses.
func unprivileged(cmd *exec.Cmd, dir string) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return fmt.Errorf("PostgreSQL does not run as root, and there is no user postgres: %w", err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return fmt.Errorf("user postgres: %w", err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return fmt.Errorf("user postgres: %w", err)
	}
	if err := os.Chown(dir, int(uid), int(gid)); err != nil {
		return err
	}
	cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	cmd.Dir = dir
	return nil
}

// startPostgres makes a cluster below dir and starts a server on a Unix socket there.
func startPostgres(ctx context.Context, dir string, settings map[string]string) (*postgresServer, error) {
	initdb, err := postgresProgram("initdb")
	if err != nil {
		return nil, err
	}
	server, err := postgresProgram("postgres")
	if err != nil {
		return nil, err
	}
	s := &postgresServer{dir: dir, log: new(bytes.Buffer)}
	data := filepath.Join(dir, "data")
	init := exec.CommandContext(ctx, initdb, "-D", data, "-U", "bench", "-A", "trust", "-E", "UTF8", "--locale=C", "--data-checksums")
	if err := unprivileged(init, dir); err != nil {
		return nil, err
	}
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	args := []string{"-D", data, "-k", dir}
	for name, value := range settings {
		args = append(args, "-c", name+"="+value)
	}
	s.cmd = exec.Command(server, args...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	if err := unprivileged(s.cmd, dir); err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	for {
		conn, err := s.connect(ctx)
		if err == nil {
			_, err = conn.Exec(ctx, schema)
			return s, errors.Join(err, conn.Close(ctx))
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("postgres does not start: %w: %s", err, s.log), s.stop())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *postgresServer) connect(ctx context.Context) (*pgx.Conn, error) {
	return pgx.Connect(ctx, "host="+s.dir+" user=bench dbname=postgres")
}

// stop ends the server (a fast shutdown) and waits for it.
func (s *postgresServer) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	if err := s.cmd.Wait(); err != nil {
		return fmt.Errorf("postgres: %w: %s", err, s.log)
	}
	return nil
}

// reset empties the shop and fills its stock, and brings the files into a state without leftovers of the run before.
func (s *postgresServer) reset(ctx context.Context, skus int, stock int64) (err error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	for _, q := range []string{
		"TRUNCATE stock, orders, order_lines, payments, outbox",
		fmt.Sprintf("INSERT INTO stock SELECT 'bench-' || lpad(i::text, 5, '0'), %d, 0, 0 FROM generate_series(0, %d) i", stock, skus-1),
		"VACUUM ANALYZE", "CHECKPOINT",
	} {
		if _, err := conn.Exec(ctx, q); err != nil {
			return fmt.Errorf("%s: %w", q, err)
		}
	}
	return nil
}

// check compares the stock with what was confirmed, and the stock with the order lines.
func (s *postgresServer) check(ctx context.Context, r *bench.Result) (err error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if _, err := conn.Exec(ctx, "SET enable_seqscan = on; SET enable_hashjoin = on"); err != nil { // one large query at last
		return err
	}
	var allocated, negative, wrong, confirmed int64
	if err := conn.QueryRow(ctx, "SELECT sum(allocated), count(*) FILTER (WHERE on_hand - reserved - allocated < 0) FROM stock").Scan(&allocated, &negative); err != nil {
		return err
	}
	if err := conn.QueryRow(ctx, `SELECT count(*) FILTER (WHERE s.allocated IS DISTINCT FROM l.units), sum(l.units)
		FROM stock s JOIN (SELECT sku, sum(quantity) AS units FROM order_lines JOIN orders ON id = order_id WHERE state = 'c' GROUP BY sku) l USING (sku)`).Scan(&wrong, &confirmed); err != nil {
		return err
	}
	var acknowledged, unknown int64
	for i := range r.Confirmed {
		acknowledged += r.Confirmed[i]
		unknown += r.Unknown[i]
	}
	if negative != 0 || wrong != 0 || confirmed != allocated || acknowledged > allocated || allocated > acknowledged+unknown {
		return fmt.Errorf("PostgreSQL: %d units allocated, %d in confirmed orders, %d confirmed to clients (%d unknown), %d SKUs oversold, %d SKUs that differ from their lines",
			allocated, confirmed, acknowledged, unknown, negative, wrong)
	}
	return nil
}

// pool lends connections to clients; there are at most as many as the server handles well.
type pool chan *pgconn.PgConn

func (s *postgresServer) pool(ctx context.Context, size int) (pool, error) {
	p := make(pool, size)
	for range size {
		conn, err := s.connect(ctx)
		if err != nil {
			return p, errors.Join(err, p.close(ctx))
		}
		raw := conn.PgConn()
		for name, q := range map[string]string{"place": "SELECT place($1, $2, $3, $4)", "confirm": "SELECT confirm($1)"} {
			if _, err := raw.Prepare(ctx, name, q, nil); err != nil {
				return p, errors.Join(err, p.close(ctx))
			}
		}
		p <- raw
	}
	return p, nil
}

func (p pool) close(ctx context.Context) error {
	var errs []error
	for range len(p) {
		errs = append(errs, (<-p).Close(ctx))
	}
	return errors.Join(errs...)
}

// postgresClient places an order with two calls of stored functions, a commit each.
type postgresClient struct {
	pool     pool
	customer []byte
	names    [][]byte
	skus     []byte
	ones     []byte
	prices   []byte
}

func newPostgresClient(p pool, names [][]byte, number, lines int) *postgresClient {
	c := &postgresClient{pool: p, customer: fmt.Appendf(nil, "customer-%d", number), names: names}
	repeat := func(v string) []byte {
		return []byte("{" + strings.TrimSuffix(strings.Repeat(v+",", lines), ",") + "}")
	}
	c.ones, c.prices = repeat("1"), repeat("1999")
	return c
}

func (c *postgresClient) Order(ctx context.Context, skus []int) error {
	c.skus = append(c.skus[:0], '{')
	for i := range skus { // descending: the SKUs in demand have the low numbers, and are locked last
		if i > 0 {
			c.skus = append(c.skus, ',')
		}
		c.skus = append(c.skus, c.names[skus[len(skus)-1-i]]...)
	}
	c.skus = append(c.skus, '}')
	id, err := c.call(ctx, "place", c.customer, c.skus, c.ones, c.prices)
	if err == nil {
		_, err = c.call(ctx, "confirm", id)
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok && e.Code == "P0001" {
		return &bench.Refusal{Code: e.Message}
	}
	return err
}

// call borrows a connection for one transaction, as a pool in transaction mode does.
func (c *postgresClient) call(ctx context.Context, statement string, args ...[]byte) (value []byte, err error) {
	var conn *pgconn.PgConn
	select {
	case conn = <-c.pool:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { c.pool <- conn }()
	r := conn.ExecPrepared(context.Background(), statement, args, nil, nil) // no context: watching one costs, and the server answers
	if r.NextRow() {
		value = bytes.Clone(r.Values()[0])
	}
	_, err = r.Close()
	return value, err
}
