package rest

import (
	"net/http"
	"strconv"
	"strings"

	"hanse/api/keyspacepb"
	"hanse/internal/reject"
)

func (s *server) getKey(c *call) error {
	k, err := c.consistency()
	if err != nil {
		return err
	}
	a, err := s.backend.Key(c.ctx, c.r.PathValue("keyspace"), c.r.PathValue("key"), k)
	if err != nil {
		return err
	}
	circumstances(c, a)
	h := c.w.Header()
	h["Etag"] = []string{etag(a.Value.Version)}
	h["Cache-Control"] = noStoreOnly
	c.send(http.StatusOK, "application/octet-stream", append(c.buffer(), a.Value.Value...))
	return nil
}

// putKey writes a key: unconditionally, or when it has a version (If-Match) or none (If-None-Match: *).
func (s *server) putKey(c *call) error {
	data, err := c.read()
	if err != nil {
		return err
	}
	r, err := c.request(false)
	if err != nil {
		return err
	}
	keyspace, key := c.r.PathValue("keyspace"), c.r.PathValue("key")
	match, err := c.header("If-Match")
	if err != nil {
		return err
	}
	none, err := c.header("If-None-Match")
	if err != nil {
		return err
	}
	if r.Key != "" { // the condition is part of what is asked
		r.Hash = digest(r.Hash).text(match).text(none).bytes(data).sum()
	}
	var a Answer[*keyspacepb.Value]
	switch {
	case match != "" && none != "":
		return refuse(reject.InvalidRequest, "If-None-Match", "If-Match and If-None-Match exclude each other")
	case match != "":
		version, perr := strconv.ParseUint(strings.Trim(match, `"`), 10, 64)
		if perr != nil || version == 0 {
			return refuse(reject.InvalidRequest, "If-Match", "want a version in quotes, as the ETag was")
		}
		a, err = s.backend.CompareAndSet(c.ctx, r, &keyspacepb.CompareAndSet{Keyspace: keyspace, Key: key, Value: data, ExpectedVersion: version})
	case none != "":
		if none != "*" {
			return refuse(reject.InvalidRequest, "If-None-Match", "want *: write only when the key does not exist")
		}
		a, err = s.backend.CompareAndSet(c.ctx, r, &keyspacepb.CompareAndSet{Keyspace: keyspace, Key: key, Value: data})
	default:
		a, err = s.backend.Put(c.ctx, r, &keyspacepb.Put{Keyspace: keyspace, Key: key, Value: data})
	}
	if err != nil {
		return err
	}
	return c.written(keyspace, key, a)
}

func (s *server) deleteKey(c *call) error {
	r, err := c.request(false)
	if err != nil {
		return err
	}
	for _, name := range []string{"If-Match", "If-None-Match"} {
		if len(c.r.Header[name]) > 0 { // to ignore it would delete what the caller wants to keep
			return refuse(reject.InvalidRequest, name, "deletes have no conditions")
		}
	}
	keyspace, key := c.r.PathValue("keyspace"), c.r.PathValue("key")
	a, err := s.backend.Delete(c.ctx, r, &keyspacepb.Delete{Keyspace: keyspace, Key: key})
	if err != nil {
		return err
	}
	return c.written(keyspace, key, a)
}

func (c *call) written(keyspace, key string, a Answer[*keyspacepb.Value]) error {
	circumstances(c, a)
	c.w.Header()["Etag"] = []string{etag(a.Value.Version)}
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.str("keyspace", keyspace)
		e.str("key", key)
		e.int("version", int64(a.Value.Version))
		e.time("updated_at", a.Value.UpdatedAt)
		e.close('}')
	})
}
