package rest

import (
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hanse/api/notificationpb"
	"hanse/internal/notification"
	"hanse/internal/order"
	"hanse/internal/reject"
)

func appendEndpoint(e *encoder, p *notificationpb.Endpoint, secret bool) {
	e.open('{')
	e.str("id", p.Id)
	e.str("url", p.Url)
	e.strs("types", p.Types)
	if secret {
		e.opt("secret", p.Secret)
	}
	e.bool("disabled", p.Disabled)
	e.opt("disabled_reason", p.DisabledReason)
	e.int("delivered", int64(p.Delivered))
	e.int("failed", int64(p.Failed))
	e.int("parked", int64(len(p.Parked)))
	cause, at := notification.LastFailure(p)
	e.opt("last_error", cause)
	e.time("last_error_at", at)
	e.time("created_at", p.CreatedAt)
	e.close('}')
}

func (s *server) listEndpoints(c *call) error {
	a, err := s.backend.Endpoints(c.ctx)
	if err != nil {
		return err
	}
	circumstances(c, a)
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.key("endpoints")
		e.open('[')
		for _, p := range a.Value.Endpoints {
			appendEndpoint(e, p, false)
		}
		e.close(']')
		e.close('}')
	})
}

func (s *server) createEndpoint(c *call) error {
	data, r, err := c.prepare(false)
	if err != nil {
		return err
	}
	target, types, err := decodeEndpoint(data)
	if err != nil {
		return err
	}
	a, err := s.backend.CreateEndpoint(c.ctx, r, target, types)
	if err != nil {
		return err
	}
	circumstances(c, a)
	c.w.Header()["Cache-Control"] = noStoreOnly
	return c.json(http.StatusCreated, func(e *encoder) { appendEndpoint(e, a.Value, true) })
}

// validReceiver says whether events could be sent to a URL.
func validReceiver(target string) bool {
	u, err := url.Parse(target)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || strings.Contains(target, "#") {
		return false
	}
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && port > 0
}

func decodeEndpoint(data []byte) (target string, types []string, err error) {
	b := newBody(data)
	b.object([]string{"url", "types"}, func(i int) {
		if i == 0 {
			target = b.text(2048)
			if b.err == nil && !validReceiver(target) {
				b.wrong(reject.InvalidRequest, "want an http or https URL with a host, without user, password and fragment; a port is 1 to 65535")
			}
			return
		}
		known := order.EventTypes()
		b.array(func(i int) {
			t := b.text(maxName)
			if b.err == nil && !slices.Contains(known, t) {
				b.wrong(reject.InvalidRequest, fmt.Sprintf("%.60q is no event type", t))
			}
			if types = append(types, t); len(types) > 100 {
				b.fail("has more than 100 types")
			}
		})
	})
	b.missing(target != "", reject.InvalidRequest, "url")
	return target, types, b.done()
}

func (s *server) deleteEndpoint(c *call) error {
	r, err := c.request(false)
	if err != nil {
		return err
	}
	if err := s.backend.DeleteEndpoint(c.ctx, r, c.r.PathValue("id")); err != nil {
		return err
	}
	c.send(http.StatusNoContent, "", nil)
	return nil
}

func (s *server) enableEndpoint(c *call) error {
	r, err := c.request(false)
	if err != nil {
		return err
	}
	a, err := s.backend.EnableEndpoint(c.ctx, r, c.r.PathValue("id"))
	if err != nil {
		return err
	}
	circumstances(c, a)
	return c.json(http.StatusOK, func(e *encoder) { appendEndpoint(e, a.Value, false) })
}

func (s *server) livez(c *call) error {
	c.send(http.StatusOK, "text/plain; charset=utf-8", []byte("alive\n"))
	return nil
}

func (s *server) readyz(c *call) error {
	if err := s.backend.Ready(); err != nil {
		c.w.Header().Set("Retry-After", "1")
		c.send(http.StatusServiceUnavailable, "text/plain; charset=utf-8", []byte("not ready: "+err.Error()+"\n"))
	} else {
		c.send(http.StatusOK, "text/plain; charset=utf-8", []byte("ready\n"))
	}
	return nil
}

// scrape serves the metrics to Prometheus.
func (s *server) scrape(c *call) error {
	if s.cfg.Gatherer == nil {
		return refuse(reject.NotFound, "", "this node keeps no metrics")
	}
	c.status = http.StatusOK
	promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{}).ServeHTTP(c.w, c.r)
	return nil
}

func (s *server) version(c *call) error {
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.str("version", s.cfg.Version)
		e.str("go", runtime.Version())
		e.close('}')
	})
}
