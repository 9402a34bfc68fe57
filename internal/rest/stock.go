package rest

import (
	"net/http"
	"time"

	"hanse/api/inventorypb"
	"hanse/internal/order"
	"hanse/internal/reject"
)

func (s *server) getStock(c *call) error {
	k, err := c.consistency()
	if err != nil {
		return err
	}
	sku := c.r.PathValue("sku")
	a, err := s.backend.StockOf(c.ctx, sku, k)
	if err != nil {
		return err
	}
	circumstances(c, a)
	return c.json(http.StatusOK, func(e *encoder) {
		var sum inventorypb.Item
		for _, i := range a.Value.Items {
			sum.OnHand += i.OnHand
			sum.Reserved += i.Reserved
			sum.Allocated += i.Allocated
			sum.Unavailable += i.Unavailable
		}
		e.open('{')
		e.str("sku", sku)
		appendCounters(e, &sum)
		e.key("locations")
		e.open('[')
		for _, i := range a.Value.Items {
			e.open('{')
			appendLocation(e, i)
			e.close('}')
		}
		e.close(']')
		e.close('}')
	})
}

func appendCounters(e *encoder, i *inventorypb.Item) {
	e.int("on_hand", i.OnHand)
	e.int("reserved", i.Reserved)
	e.int("allocated", i.Allocated)
	e.int("unavailable", i.Unavailable)
	e.int("available", i.OnHand-i.Reserved-i.Allocated-i.Unavailable)
}

func appendLocation(e *encoder, i *inventorypb.Item) {
	e.str("location", i.Location)
	appendCounters(e, i)
	e.bool("tracked", !i.Untracked)
	e.int("revision", int64(i.Revision))
}

// item answers with the counters after a change.
func (c *call) item(a Answer[*inventorypb.Item], status int) error {
	circumstances(c, a)
	return c.json(status, func(e *encoder) {
		e.open('{')
		e.str("sku", a.Value.Sku)
		appendLocation(e, a.Value)
		e.close('}')
	})
}

// sku reads the SKU in the path of what changes stock. Reads take any: what is on record stays readable.
func (c *call) sku() (string, error) {
	sku := c.r.PathValue("sku")
	if !order.ValidSKU(sku) {
		return "", refuse(reject.InvalidRequest, "sku", wantSKU)
	}
	return sku, nil
}

func (s *server) receiveStock(c *call) error {
	data, r, err := c.prepare(true)
	if err != nil {
		return err
	}
	m, err := decodeStockChange(data, false)
	if err != nil {
		return err
	}
	sku, err := c.sku()
	if err != nil {
		return err
	}
	a, err := s.backend.Receive(c.ctx, r, &inventorypb.Receive{
		Sku: sku, Location: m.Location, Quantity: m.Quantity, Reason: m.Reason,
	})
	if err != nil {
		return err
	}
	return c.item(a, http.StatusCreated)
}

func (s *server) adjustStock(c *call) error {
	data, r, err := c.prepare(true)
	if err != nil {
		return err
	}
	m, err := decodeStockChange(data, true)
	if err != nil {
		return err
	}
	sku, err := c.sku()
	if err != nil {
		return err
	}
	a, err := s.backend.Adjust(c.ctx, r, &inventorypb.Adjust{
		Sku: sku, Location: m.Location, Quantity: m.Quantity, Reason: m.Reason,
	})
	if err != nil {
		return err
	}
	return c.item(a, http.StatusCreated)
}

func (s *server) setTracking(c *call) error {
	data, r, err := c.prepare(false)
	if err != nil {
		return err
	}
	m, err := decodeTracking(data)
	if err != nil {
		return err
	}
	if m.Sku, err = c.sku(); err != nil {
		return err
	}
	a, err := s.backend.SetTracking(c.ctx, r, m)
	if err != nil {
		return err
	}
	return c.item(a, http.StatusOK)
}

func (s *server) reserveStock(c *call) error {
	data, r, err := c.prepare(true)
	if err != nil {
		return err
	}
	m, err := decodeReservation(data)
	if err != nil {
		return err
	}
	a, err := s.backend.Reserve(c.ctx, r, m.SKU, m.Location, m.Quantity, time.Duration(m.TTLSeconds)*time.Second)
	if err != nil {
		return err
	}
	c.w.Header().Set("Location", "/v1/reservations/"+a.Value.Id)
	return c.hold(a, http.StatusCreated)
}

func (s *server) getReservation(c *call) error {
	k, err := c.consistency()
	if err != nil {
		return err
	}
	a, err := s.backend.Reservation(c.ctx, c.r.PathValue("id"), k)
	if err != nil {
		return err
	}
	return c.hold(a, http.StatusOK)
}

func (s *server) releaseReservation(c *call) error {
	r, err := c.request(false)
	if err != nil {
		return err
	}
	a, err := s.backend.ReleaseReservation(c.ctx, r, c.r.PathValue("id"))
	if err != nil {
		return err
	}
	return c.hold(a, http.StatusOK)
}

func (c *call) hold(a Answer[*inventorypb.Hold], status int) error {
	circumstances(c, a)
	return c.json(status, func(e *encoder) {
		h := a.Value
		e.open('{')
		e.str("id", h.Id)
		e.str("state", nameOf(holdStates, h.State))
		var sku string
		var quantity int64
		for _, l := range h.Lines {
			sku, quantity = l.Sku, quantity+l.Quantity
		}
		e.str("sku", sku)
		e.int("quantity", quantity)
		e.str("location", h.Location)
		e.time("expires_at", h.Due)
		e.time("updated_at", h.UpdatedAt)
		e.close('}')
	})
}

func (s *server) scanItems(c *call) error {
	shard, after, limit, err := c.scan("inventory")
	if err != nil {
		return err
	}
	a, err := s.backend.ScanItems(c.ctx, shard, after, c.query("after_location"), limit)
	if err != nil {
		return err
	}
	circumstances(c, a)
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.key("items")
		e.open('[')
		for _, i := range a.Value.Items {
			e.open('{')
			e.str("sku", i.Sku)
			appendLocation(e, i)
			e.close('}')
		}
		e.close(']')
		e.bool("has_more", a.Value.More)
		e.close('}')
	})
}

func (s *server) scanHolds(c *call) error {
	shard, after, limit, err := c.scan("inventory")
	if err != nil {
		return err
	}
	a, err := s.backend.ScanHolds(c.ctx, shard, after, limit)
	if err != nil {
		return err
	}
	circumstances(c, a)
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.key("holds")
		e.open('[')
		for _, h := range a.Value.Holds {
			e.open('{')
			e.str("id", h.Id)
			e.str("state", nameOf(holdStates, h.State))
			e.str("location", h.Location)
			e.bool("free_standing", h.FreeStanding)
			e.time("updated_at", h.UpdatedAt)
			e.key("lines")
			e.open('[')
			for _, l := range h.Lines {
				e.open('{')
				e.str("sku", l.Sku)
				e.int("quantity", l.Quantity)
				e.int("fulfilled", l.Fulfilled)
				e.int("released", l.Released)
				e.int("restocked", l.Restocked)
				e.close('}')
			}
			e.close(']')
			e.close('}')
		}
		e.close(']')
		e.bool("has_more", a.Value.More)
		e.close('}')
	})
}

func (s *server) scanMovements(c *call) error {
	shard, after, limit, err := c.scan("inventory")
	if err != nil {
		return err
	}
	from, err := number("after", after, 0, 0, 1<<62)
	if err != nil {
		return err
	}
	a, err := s.backend.Movements(c.ctx, shard, from, limit)
	if err != nil {
		return err
	}
	circumstances(c, a)
	return c.json(http.StatusOK, func(e *encoder) {
		e.open('{')
		e.key("movements")
		e.open('[')
		for _, m := range a.Value.Movements {
			e.open('{')
			e.int("seq", int64(m.Seq))
			e.str("sku", m.Sku)
			e.str("location", m.Location)
			e.int("quantity", m.Quantity)
			e.bool("adjustment", m.Adjustment)
			e.opt("reason", m.Reason)
			e.time("at", m.At)
			e.close('}')
		}
		e.close(']')
		e.bool("has_more", a.Value.More)
		e.close('}')
	})
}

var stockFields = []string{"quantity", "location", "reason"}

// decodeStockChange reads a [StockChange]; only an adjustment may take units away.
func decodeStockChange(data []byte, adjustment bool) (StockChange, error) {
	b := newBody(data)
	var m StockChange
	present := false
	b.object(stockFields, func(i int) {
		switch i {
		case 0:
			present = true
			if !adjustment {
				m.Quantity = b.quantity()
				return
			}
			if m.Quantity = b.int(); b.err == nil && (m.Quantity == 0 || m.Quantity < -maxQuantity || m.Quantity > maxQuantity) {
				b.wrong(reject.InvalidQuantity, "want whole units other than 0, at most 1,000,000,000 up or down")
			}
		case 1:
			m.Location = b.location()
		case 2:
			m.Reason = b.text(maxName)
		}
	})
	b.missing(present, reject.InvalidQuantity, "quantity")
	return m, b.done()
}

var trackingFields = []string{"tracked", "location"}

func decodeTracking(data []byte) (*inventorypb.SetTracking, error) {
	b, m := newBody(data), &inventorypb.SetTracking{}
	present := false
	b.object(trackingFields, func(i int) {
		switch i {
		case 0:
			present = true
			m.Untracked = !b.bool()
		case 1:
			m.Location = b.location()
		}
	})
	b.missing(present, reject.InvalidRequest, "tracked")
	return m, b.done()
}

var reservationFields = []string{"sku", "quantity", "location", "ttl_seconds"}

const maxTTLSeconds = 7 * 24 * 3600

func decodeReservation(data []byte) (ReservationRequest, error) {
	b := newBody(data)
	var m ReservationRequest
	var has [4]bool
	b.object(reservationFields, func(i int) {
		has[i] = true
		switch i {
		case 0:
			m.SKU = b.sku()
		case 1:
			m.Quantity = b.quantity()
		case 2:
			m.Location = b.location()
		case 3:
			if m.TTLSeconds = b.int(); b.err == nil && (m.TTLSeconds < 1 || m.TTLSeconds > maxTTLSeconds) {
				b.wrong(reject.InvalidRequest, "want 1 second to 7 days")
			}
		}
	})
	b.missing(has[0], reject.InvalidRequest, "sku")
	b.missing(has[1], reject.InvalidQuantity, "quantity")
	b.missing(has[3], reject.InvalidRequest, "ttl_seconds")
	return m, b.done()
}
