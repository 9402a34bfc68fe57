package client

import (
	"encoding/json"
	"time"
)

// PlaceOrder is an order to place.
type PlaceOrder struct {
	CustomerID        string    `json:"customer_id,omitempty"`
	Currency          string    `json:"currency"`
	Lines             []NewLine `json:"lines"`
	Total             *int64    `json:"total,omitempty"` // checked against the lines when present
	Payment           *Method   `json:"payment,omitempty"`
	Location          string    `json:"location,omitempty"`
	MerchantReference string    `json:"merchant_reference,omitempty"`
}

// NewLine is a line of an order to place.
type NewLine struct {
	SKU       string `json:"sku"`
	Quantity  int64  `json:"quantity"`
	UnitPrice int64  `json:"unit_price"`
	Currency  string `json:"currency,omitempty"` // the order's, or empty
	Tracked   *bool  `json:"tracked,omitempty"`  // false for what has no stock; true unless stated
}

// Method is how an order is paid.
type Method struct {
	Method string `json:"method"`
}

// Order is an order.
type Order struct {
	ID                string        `json:"id"`
	State             string        `json:"state"`
	Reason            string        `json:"reason,omitempty"`
	ReasonDetail      string        `json:"reason_detail,omitempty"`
	Revision          uint64        `json:"revision"`
	CustomerID        string        `json:"customer_id"`
	Currency          string        `json:"currency"`
	Location          string        `json:"location"`
	Lines             []Line        `json:"lines"`
	Total             int64         `json:"total"`
	PaymentStatus     string        `json:"payment_status"`
	FulfillmentStatus string        `json:"fulfillment_status"`
	ReturnStatus      string        `json:"return_status"`
	PaymentID         string        `json:"payment_id"`
	Payment           OrderPayment  `json:"payment"`
	Fulfillments      []Fulfillment `json:"fulfillments"`
	Returns           []Return      `json:"returns"`
	Refunds           []Refund      `json:"refunds"`
	Attention         bool          `json:"attention"`
	Stuck             []StuckStep   `json:"stuck,omitempty"`
	CreatedAt         time.Time     `json:"created_at"`
	UpdatedAt         time.Time     `json:"updated_at"`
	MerchantReference string        `json:"merchant_reference,omitempty"`
	// Replayed says that the request was a repetition, answered as the first time; it is not part of the JSON.
	Replayed bool `json:"-"`
}

// Line is a line of an order.
type Line struct {
	Line      uint32 `json:"line"`
	SKU       string `json:"sku"`
	Quantity  int64  `json:"quantity"`
	UnitPrice int64  `json:"unit_price"`
	Total     int64  `json:"total"`
	Tracked   bool   `json:"tracked"`
	Canceled  int64  `json:"canceled"`
	Fulfilled int64  `json:"fulfilled"`
	Returned  int64  `json:"returned"`
}

// OrderPayment sums an order's money up.
type OrderPayment struct {
	Method     string `json:"method"`
	Authorized int64  `json:"authorized"`
	Captured   int64  `json:"captured"`
	Refunded   int64  `json:"refunded"`
	Voided     int64  `json:"voided"`
}

// Item is a quantity of one line.
type Item struct {
	Line     uint32 `json:"line"`
	Quantity int64  `json:"quantity"`
}

// Fulfillment is a shipment.
type Fulfillment struct {
	ID            string    `json:"id"`
	At            time.Time `json:"at"`
	Items         []Item    `json:"items"`
	Amount        int64     `json:"amount"`
	Captured      int64     `json:"captured"`
	CaptureFailed string    `json:"capture_failed,omitempty"`
	Tracking      string    `json:"tracking,omitempty"`
}

// Return is goods that came back.
type Return struct {
	ID          string    `json:"id"`
	At          time.Time `json:"at"`
	Items       []Item    `json:"items"`
	Disposition string    `json:"disposition"`
	Reason      string    `json:"reason,omitempty"`
	Amount      int64     `json:"amount"`
}

// Refund is money that goes back.
type Refund struct {
	ID       string    `json:"id"`
	At       time.Time `json:"at"`
	Amount   int64     `json:"amount"`
	Reason   string    `json:"reason,omitempty"`
	ReturnID string    `json:"return_id,omitempty"`
	Done     bool      `json:"done"`
	Failed   string    `json:"failed,omitempty"`
}

// StuckStep is a step of an order's saga that could not be done for long.
type StuckStep struct {
	Seq      uint64    `json:"seq"`
	Step     string    `json:"step"`
	Cause    string    `json:"cause"`
	Since    time.Time `json:"since,omitzero"`
	Attempts uint64    `json:"attempts"`          // when it became stuck; more since
	NextTry  time.Time `json:"next_try,omitzero"` // as it was known then
	Amount   int64     `json:"amount"`            // money at risk
	Units    int64     `json:"units"`             // stock at risk
}

// ReturnItems takes items back.
type ReturnItems struct {
	Items       []Item `json:"items"`
	Disposition string `json:"disposition,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Refund      *bool  `json:"refund,omitempty"`
}

// Event is a fact about an order.
type Event struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	OrderID   string          `json:"order_id"`
	Version   uint64          `json:"version"`
	Timestamp time.Time       `json:"timestamp"`
	Sequence  uint64          `json:"sequence"`
	Data      json.RawMessage `json:"data"`
}

// Story is an order's history in words.
type Story struct {
	OrderID string     `json:"order_id"`
	Summary string     `json:"summary"`
	Story   []Sentence `json:"story"`
}

// Sentence is one event in words.
type Sentence struct {
	Version   uint64    `json:"version"`
	Position  string    `json:"position"`
	Timestamp time.Time `json:"timestamp"`
	Type      string    `json:"type"`
	Cause     string    `json:"cause"`
	Text      string    `json:"text"`
}

// Stock is a SKU over all its locations.
type Stock struct {
	SKU         string     `json:"sku"`
	OnHand      int64      `json:"on_hand"`
	Reserved    int64      `json:"reserved"`
	Allocated   int64      `json:"allocated"`
	Unavailable int64      `json:"unavailable"`
	Available   int64      `json:"available"`
	Locations   []Location `json:"locations"`
}

// Location is a SKU at one location.
type Location struct {
	SKU         string `json:"sku,omitempty"`
	Location    string `json:"location"`
	OnHand      int64  `json:"on_hand"`
	Reserved    int64  `json:"reserved"`
	Allocated   int64  `json:"allocated"`
	Unavailable int64  `json:"unavailable"`
	Available   int64  `json:"available"`
	Tracked     bool   `json:"tracked"`
	Revision    uint64 `json:"revision"`
}

// StockChange receives or adjusts stock.
type StockChange struct {
	Quantity int64  `json:"quantity"`
	Location string `json:"location,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// Reserve holds stock without an order.
type Reserve struct {
	SKU        string `json:"sku"`
	Quantity   int64  `json:"quantity"`
	Location   string `json:"location,omitempty"`
	TTLSeconds int64  `json:"ttl_seconds"`
}

// Reservation is stock held without an order.
type Reservation struct {
	ID        string    `json:"id"`
	State     string    `json:"state"`
	SKU       string    `json:"sku"`
	Quantity  int64     `json:"quantity"`
	Location  string    `json:"location"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	UpdatedAt time.Time `json:"updated_at,omitzero"`
}

// Payment is what was asked of the provider and what it did.
type Payment struct {
	ID                string      `json:"id"`
	OrderID           string      `json:"order_id"`
	Currency          string      `json:"currency"`
	Method            string      `json:"method"`
	Requested         int64       `json:"requested"`
	Authorized        int64       `json:"authorized"`
	Captured          int64       `json:"captured"`
	Refunded          int64       `json:"refunded"`
	Voided            int64       `json:"voided"`
	Operations        []Operation `json:"operations"`
	ProviderReference string      `json:"provider_reference,omitempty"`
	Revision          uint64      `json:"revision"`
	CreatedAt         time.Time   `json:"created_at"`
	UpdatedAt         time.Time   `json:"updated_at"`
}

// Operation is one operation at the provider.
type Operation struct {
	ID                string    `json:"id"`
	Kind              string    `json:"kind"`
	State             string    `json:"state"`
	Amount            int64     `json:"amount"`
	Attempts          uint32    `json:"attempts"`
	Code              string    `json:"code,omitempty"`
	ProviderReference string    `json:"provider_reference,omitempty"`
	Stuck             bool      `json:"stuck"`
	NextTry           time.Time `json:"next_try,omitzero"`
	CreatedAt         time.Time `json:"created_at,omitzero"`
	FinishedAt        time.Time `json:"finished_at,omitzero"`
}

// Saga is an order that is on its way.
type Saga struct {
	OrderID     string      `json:"order_id"`
	State       string      `json:"state"`
	Revision    uint64      `json:"revision"`
	PaymentID   string      `json:"payment_id"`
	PaymentStep string      `json:"payment_step"`
	Currency    string      `json:"currency"`
	Total       int64       `json:"total"`
	Legs        []Leg       `json:"legs"`
	Stuck       []StuckStep `json:"stuck"`
	Deadline    time.Time   `json:"deadline,omitzero"`
	CreatedAt   time.Time   `json:"created_at"`
	UpdatedAt   time.Time   `json:"updated_at"`
}

// Leg is the part of the stock that one inventory shard keeps.
type Leg struct {
	Shard string `json:"shard"`
	State string `json:"state"`
}

// Written is a key after a write.
type Written struct {
	Keyspace  string    `json:"keyspace"`
	Key       string    `json:"key"`
	Version   uint64    `json:"version"` // number of writes so far, over deletes too
	UpdatedAt time.Time `json:"updated_at,omitzero"`
}

// Endpoint is a webhook receiver.
type Endpoint struct {
	ID             string    `json:"id"`
	URL            string    `json:"url"`
	Types          []string  `json:"types"`
	Secret         string    `json:"secret,omitempty"` // signs the deliveries; only in the answer that created it
	Disabled       bool      `json:"disabled"`
	DisabledReason string    `json:"disabled_reason,omitempty"`
	Delivered      uint64    `json:"delivered"`
	Failed         uint64    `json:"failed"`
	Parked         int       `json:"parked"`
	LastError      string    `json:"last_error,omitempty"` // why the last attempt failed, of the deliveries that are tried again
	LastErrorAt    time.Time `json:"last_error_at,omitzero"`
	CreatedAt      time.Time `json:"created_at"`
}

// Hold is what an order or a reservation keeps in an inventory shard.
type Hold struct {
	ID           string     `json:"id"`
	State        string     `json:"state"`
	Location     string     `json:"location"`
	FreeStanding bool       `json:"free_standing"`
	UpdatedAt    time.Time  `json:"updated_at"`
	Lines        []HoldLine `json:"lines"`
}

// HoldLine is one SKU of a hold.
type HoldLine struct {
	SKU       string `json:"sku"`
	Quantity  int64  `json:"quantity"`
	Fulfilled int64  `json:"fulfilled"`
	Released  int64  `json:"released"`
	Restocked int64  `json:"restocked"`
}

// Movement is a receipt or an adjustment.
type Movement struct {
	Seq        uint64    `json:"seq"`
	SKU        string    `json:"sku"`
	Location   string    `json:"location"`
	Quantity   int64     `json:"quantity"`
	Adjustment bool      `json:"adjustment"`
	Reason     string    `json:"reason,omitempty"`
	At         time.Time `json:"at"`
}
