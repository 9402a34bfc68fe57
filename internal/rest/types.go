package rest

// The types of this file are the API's JSON: they make the schemas of /openapi.json, and a test holds the hand-written
// encoders to them. Amounts are whole minor units of the order's currency; times are RFC 3339 in UTC with milliseconds.

// OrderRequest places an order.
type OrderRequest struct {
	CustomerID        string          `json:"customer_id,omitempty" maxBytes:"255" doc:"Empty for a guest"`
	Currency          string          `json:"currency" pattern:"^[A-Z]{3}$" doc:"Three capital letters, as ISO 4217 has them; whether they are in use there is not checked" example:"EUR"`
	Lines             []LineRequest   `json:"lines" minItems:"1" maxItems:"2000"`
	Total             *int64          `json:"total,omitempty" doc:"Checked against the lines when present"`
	Payment           *PaymentRequest `json:"payment,omitempty" doc:"Without it the provider is asked without a method, and takes its default or declines"`
	Location          string          `json:"location,omitempty" maxBytes:"128" doc:"Where the stock is taken from; main unless stated"`
	MerchantReference string          `json:"merchant_reference,omitempty" maxBytes:"255"`
}

// LineRequest is a line of an order to place.
type LineRequest struct {
	SKU       string `json:"sku" minLength:"1" maxLength:"64" doc:"Visible characters, and spaces between them"`
	Quantity  int64  `json:"quantity" minimum:"1" maximum:"1000000000"`
	UnitPrice int64  `json:"unit_price" minimum:"0" doc:"Minor units"`
	Tracked   *bool  `json:"tracked,omitempty" doc:"False for a service or voucher without stock; true unless stated. Who places the order decides: a line with false takes no stock, of a SKU that is counted neither"`
	Currency  string `json:"currency,omitempty" doc:"Must equal the order's"`
}

// PaymentRequest says how an order is paid.
type PaymentRequest struct {
	Method string `json:"method" minLength:"1" maxBytes:"255" doc:"The provider's token of the payment method"`
}

// Order is an order as it is, or as it was at a version.
type Order struct {
	ID                string        `json:"id" example:"ord_01kq3m6s2zt1m2n8c4v7d9e5fg"`
	State             string        `json:"state" enum:"placing,awaiting_payment,confirmed,partially_fulfilled,fulfilled,completed,canceling,canceled,expiring,expired,rejecting,rejected,on_hold,draft"`
	Reason            string        `json:"reason,omitempty" doc:"Why it was rejected, canceled or expired"`
	ReasonDetail      string        `json:"reason_detail,omitempty"`
	Revision          uint64        `json:"revision" doc:"Number of events so far; the ETag"`
	CustomerID        string        `json:"customer_id"`
	Currency          string        `json:"currency"`
	Location          string        `json:"location"`
	Lines             []Line        `json:"lines"`
	Total             int64         `json:"total"`
	PaymentStatus     string        `json:"payment_status" enum:"none,pending,authorized,partially_captured,captured,partially_refunded,refunded,declined,voided"`
	FulfillmentStatus string        `json:"fulfillment_status" enum:"unfulfilled,partial,fulfilled"`
	ReturnStatus      string        `json:"return_status" enum:"none,partial,returned"`
	PaymentID         string        `json:"payment_id"`
	Payment           OrderPayment  `json:"payment" doc:"The sums; with ?expand=payment the whole payment"`
	Fulfillments      []Fulfillment `json:"fulfillments"`
	Returns           []Return      `json:"returns"`
	Refunds           []Refund      `json:"refunds"`
	Attention         bool          `json:"attention" doc:"A person has to look"`
	Stuck             []StuckStep   `json:"stuck,omitempty"`
	CreatedAt         string        `json:"created_at" format:"date-time"`
	UpdatedAt         string        `json:"updated_at" format:"date-time"`
	MerchantReference string        `json:"merchant_reference,omitempty"`
	Events            []Event       `json:"events,omitempty" doc:"With ?expand=events"`
}

// Line is a line of an order.
type Line struct {
	Line      uint32 `json:"line" doc:"From 1"`
	SKU       string `json:"sku"`
	Quantity  int64  `json:"quantity"`
	UnitPrice int64  `json:"unit_price"`
	Total     int64  `json:"total"`
	Tracked   bool   `json:"tracked"`
	Canceled  int64  `json:"canceled"`
	Fulfilled int64  `json:"fulfilled"`
	Returned  int64  `json:"returned"`
}

// OrderPayment sums an order's money up. With ?expand=payment it is the whole [Payment].
type OrderPayment struct {
	Method     string `json:"method"`
	Authorized int64  `json:"authorized"`
	Captured   int64  `json:"captured"`
	Refunded   int64  `json:"refunded"`
	Voided     int64  `json:"voided"`

	ID                string      `json:"id,omitempty" doc:"This and what follows: with ?expand=payment"`
	OrderID           string      `json:"order_id,omitempty"`
	Currency          string      `json:"currency,omitempty"`
	Requested         int64       `json:"requested,omitempty"`
	Operations        []Operation `json:"operations,omitempty"`
	ProviderReference string      `json:"provider_reference,omitempty"`
	Revision          uint64      `json:"revision,omitempty"`
	CreatedAt         string      `json:"created_at,omitempty" format:"date-time"`
	UpdatedAt         string      `json:"updated_at,omitempty" format:"date-time"`
}

// ItemQuantity is a quantity of one line.
type ItemQuantity struct {
	Line     uint32 `json:"line"`
	Quantity int64  `json:"quantity"`
}

// Fulfillment is a shipment.
type Fulfillment struct {
	ID            string         `json:"id"`
	At            string         `json:"at" format:"date-time"`
	Items         []ItemQuantity `json:"items"`
	Amount        int64          `json:"amount" doc:"To charge"`
	Captured      int64          `json:"captured"`
	CaptureFailed string         `json:"capture_failed,omitempty"`
	Tracking      string         `json:"tracking,omitempty"`
}

// Return is goods that came back.
type Return struct {
	ID          string         `json:"id"`
	At          string         `json:"at" format:"date-time"`
	Items       []ItemQuantity `json:"items"`
	Disposition string         `json:"disposition" enum:"sellable,damaged,lost"`
	Reason      string         `json:"reason,omitempty"`
	Amount      int64          `json:"amount" doc:"To refund"`
}

// Refund is money that goes back.
type Refund struct {
	ID       string `json:"id"`
	At       string `json:"at" format:"date-time"`
	Amount   int64  `json:"amount"`
	Reason   string `json:"reason,omitempty"`
	ReturnID string `json:"return_id,omitempty"`
	Done     bool   `json:"done"`
	Failed   string `json:"failed,omitempty"`
}

// StuckStep is a step of the saga that could not be done for long.
type StuckStep struct {
	Seq      uint64 `json:"seq" doc:"Its number in /v1/sagas/{id}/steps/{seq}"`
	Step     string `json:"step"`
	Cause    string `json:"cause"`
	Since    string `json:"since,omitempty" format:"date-time"`
	Attempts uint64 `json:"attempts" doc:"When it became stuck; more since"`
	NextTry  string `json:"next_try,omitempty" format:"date-time" doc:"As it was known then; when it has passed, others follow"`
	Amount   int64  `json:"amount" doc:"Money at risk"`
	Units    int64  `json:"units" doc:"Stock at risk"`
}

// OrderPage is a page of orders.
type OrderPage struct {
	Orders     []Order `json:"orders"`
	HasMore    bool    `json:"has_more"`
	NextCursor string  `json:"next_cursor,omitempty" doc:"Pass it as ?cursor= for the next page"`
}

// CancelRequest cancels an order, or what is still open of it.
type CancelRequest struct {
	Reason string `json:"reason,omitempty" maxBytes:"255"`
}

// ItemRequest is a quantity of one line to ship or to take back.
type ItemRequest struct {
	Line     uint32 `json:"line" minimum:"1"`
	Quantity int64  `json:"quantity" minimum:"1" maximum:"1000000000"`
}

// FulfillRequest ships items, or without items all that is open.
type FulfillRequest struct {
	Items    []ItemRequest `json:"items,omitempty" minItems:"1" maxItems:"2000" doc:"All that is open when left out; neither empty nor null"`
	Tracking string        `json:"tracking,omitempty" maxBytes:"255"`
}

// ReturnRequest takes items back.
type ReturnRequest struct {
	Items       []ItemRequest `json:"items" minItems:"1" maxItems:"2000"`
	Disposition string        `json:"disposition,omitempty" enum:"sellable,damaged,lost" doc:"sellable unless stated"`
	Reason      string        `json:"reason,omitempty" maxBytes:"255"`
	Refund      *bool         `json:"refund,omitempty" doc:"False for a return without money back; true unless stated"`
}

// RefundRequest gives money back without goods.
type RefundRequest struct {
	Amount int64  `json:"amount" minimum:"1"`
	Reason string `json:"reason,omitempty" maxBytes:"255"`
}

// Event is a fact about an order. Consumers ignore types and fields they do not know.
type Event struct {
	ID        string         `json:"id" doc:"The order's ID, a dot and the version: the same wherever the event is seen"`
	Type      string         `json:"type" example:"order.confirmed"`
	OrderID   string         `json:"order_id"`
	Version   uint64         `json:"version" doc:"1 for the first event of an order, without gaps"`
	Timestamp string         `json:"timestamp" format:"date-time"`
	Sequence  uint64         `json:"sequence" doc:"Position in the feed of the order's shard, without gaps"`
	Data      map[string]any `json:"data"`
}

// EventPage is an order's whole history.
type EventPage struct {
	Events []Event `json:"events"`
}

// Story is an order's history in words.
type Story struct {
	OrderID string     `json:"order_id"`
	Summary string     `json:"summary"`
	Story   []Sentence `json:"story"`
}

// Sentence is one event in words.
type Sentence struct {
	Version   uint64 `json:"version"`
	Position  string `json:"position" doc:"Where it is in which shard's feed" example:"order/1:5123"`
	Timestamp string `json:"timestamp" format:"date-time"`
	Type      string `json:"type"`
	Cause     string `json:"cause" doc:"Who or what made it happen"`
	Text      string `json:"text"`
}

// Stock is a SKU over all its locations: available = on_hand - reserved - allocated - unavailable.
type Stock struct {
	SKU         string          `json:"sku"`
	OnHand      int64           `json:"on_hand"`
	Reserved    int64           `json:"reserved" doc:"Held for orders being placed, and by reservations"`
	Allocated   int64           `json:"allocated" doc:"Of confirmed orders, to be sent"`
	Unavailable int64           `json:"unavailable" doc:"On hand but damaged"`
	Available   int64           `json:"available"`
	Locations   []StockLocation `json:"locations"`
}

// StockLocation is a SKU at one location.
type StockLocation struct {
	Location    string `json:"location"`
	OnHand      int64  `json:"on_hand"`
	Reserved    int64  `json:"reserved"`
	Allocated   int64  `json:"allocated"`
	Unavailable int64  `json:"unavailable"`
	Available   int64  `json:"available"`
	Tracked     bool   `json:"tracked"`
	Revision    uint64 `json:"revision"`
}

// StockChange receives or adjusts stock. The answer is the location that changed.
type StockChange struct {
	Quantity int64  `json:"quantity" doc:"Units: above zero for a receipt, not zero for an adjustment"`
	Location string `json:"location,omitempty" maxBytes:"128" doc:"main unless stated"`
	Reason   string `json:"reason,omitempty" maxBytes:"255"`
}

// StockChanged is the counters after a change.
type StockChanged struct {
	SKU string `json:"sku"`
	StockLocation
}

// TrackingRequest says whether stock of a SKU is counted.
type TrackingRequest struct {
	Tracked  bool   `json:"tracked"`
	Location string `json:"location,omitempty" maxBytes:"128" doc:"main unless stated"`
}

// ReservationRequest holds stock without an order, for a while.
type ReservationRequest struct {
	SKU        string `json:"sku" minLength:"1" maxLength:"64" doc:"Visible characters, and spaces between them"`
	Quantity   int64  `json:"quantity" minimum:"1" maximum:"1000000000"`
	Location   string `json:"location,omitempty" maxBytes:"128" doc:"main unless stated"`
	TTLSeconds int64  `json:"ttl_seconds" minimum:"1" maximum:"604800"`
}

// Reservation is stock held without an order.
type Reservation struct {
	ID        string `json:"id"`
	State     string `json:"state" enum:"held,allocated,refused,void,released,expired,consumed,tentative"`
	SKU       string `json:"sku"`
	Quantity  int64  `json:"quantity"`
	Location  string `json:"location"`
	ExpiresAt string `json:"expires_at,omitempty" format:"date-time"`
	UpdatedAt string `json:"updated_at,omitempty" format:"date-time"`
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
	CreatedAt         string      `json:"created_at" format:"date-time"`
	UpdatedAt         string      `json:"updated_at" format:"date-time"`
}

// Operation is one operation at the provider.
type Operation struct {
	ID                string `json:"id"`
	Kind              string `json:"kind" enum:"authorize,capture,void,refund"`
	State             string `json:"state" enum:"pending,sent,unknown,succeeded,declined,canceled"`
	Amount            int64  `json:"amount"`
	Attempts          uint32 `json:"attempts"`
	Code              string `json:"code,omitempty"`
	ProviderReference string `json:"provider_reference,omitempty"`
	Stuck             bool   `json:"stuck"`
	NextTry           string `json:"next_try,omitempty" format:"date-time"`
	CreatedAt         string `json:"created_at,omitempty" format:"date-time"`
	FinishedAt        string `json:"finished_at,omitempty" format:"date-time"`
}

// ResolveOperation settles an operation whose outcome the provider cannot tell.
type ResolveOperation struct {
	Succeeded bool   `json:"succeeded"`
	Evidence  string `json:"evidence" minLength:"1" maxBytes:"1000" doc:"How it is known"`
	Operator  string `json:"operator,omitempty" maxBytes:"255"`
}

// Saga is an order that is on its way, with the steps that are stuck.
type Saga struct {
	OrderID     string      `json:"order_id"`
	State       string      `json:"state"`
	Revision    uint64      `json:"revision"`
	PaymentID   string      `json:"payment_id"`
	PaymentStep string      `json:"payment_step" enum:"none,authorizing,authorized,declined,voiding,voided,partially_captured,captured,partially_refunded,refunded"`
	Currency    string      `json:"currency"`
	Total       int64       `json:"total"`
	Legs        []SagaLeg   `json:"legs"`
	Stuck       []StuckStep `json:"stuck"`
	Deadline    string      `json:"deadline,omitempty" format:"date-time"`
	CreatedAt   string      `json:"created_at" format:"date-time"`
	UpdatedAt   string      `json:"updated_at" format:"date-time"`
}

// SagaLeg is the part of the stock that one inventory shard keeps.
type SagaLeg struct {
	Shard string `json:"shard" example:"inventory/2"`
	State string `json:"state" enum:"pending,held,refused,releasing,released,closed" doc:"closed: all of the order has left or was canceled, nothing is kept"`
}

// SagaPage is a page of sagas.
type SagaPage struct {
	Sagas      []Saga `json:"sagas"`
	HasMore    bool   `json:"has_more"`
	NextCursor string `json:"next_cursor,omitempty" doc:"Pass it as ?cursor= for the next page"`
}

// RetryRequest names who asks for a retry.
type RetryRequest struct {
	Operator string `json:"operator,omitempty" maxBytes:"255"`
}

// ResolveStep settles a stuck step by hand.
type ResolveStep struct {
	Decision string `json:"decision" enum:"retry,skip,done"`
	Evidence string `json:"evidence" minLength:"1" maxBytes:"1000" doc:"How it is known"`
	Operator string `json:"operator,omitempty" maxBytes:"255"`
}

// KeyWritten is a key's version after a write.
type KeyWritten struct {
	Keyspace  string `json:"keyspace"`
	Key       string `json:"key"`
	Version   uint64 `json:"version" doc:"Number of writes so far, over deletes too; the ETag"`
	UpdatedAt string `json:"updated_at,omitempty" format:"date-time"`
}

// EndpointRequest registers a webhook receiver.
type EndpointRequest struct {
	URL   string   `json:"url" format:"uri" maxBytes:"2048"`
	Types []string `json:"types,omitempty" maxItems:"100" doc:"Event types; all when left out"`
}

// Endpoint is a webhook receiver.
type Endpoint struct {
	ID             string   `json:"id"`
	URL            string   `json:"url"`
	Types          []string `json:"types"`
	Secret         string   `json:"secret,omitempty" doc:"Signs the deliveries; shown once, when the endpoint is made"`
	Disabled       bool     `json:"disabled"`
	DisabledReason string   `json:"disabled_reason,omitempty"`
	Delivered      uint64   `json:"delivered"`
	Failed         uint64   `json:"failed"`
	Parked         int      `json:"parked" doc:"Deliveries that failed and are tried again"`
	LastError      string   `json:"last_error,omitempty" doc:"Why the last attempt failed, of the deliveries that are tried again"`
	LastErrorAt    string   `json:"last_error_at,omitempty" format:"date-time"`
	CreatedAt      string   `json:"created_at" format:"date-time"`
}

// EndpointPage lists all webhook receivers.
type EndpointPage struct {
	Endpoints []Endpoint `json:"endpoints"`
}

// Node is a node as the answering one sees it.
type Node struct {
	ID            uint64   `json:"id"`
	Name          string   `json:"name,omitempty"`
	REST          string   `json:"rest" doc:"host:port, as all three addresses"`
	Peers         string   `json:"peers"`
	Gossip        string   `json:"gossip,omitempty"`
	Zone          string   `json:"zone,omitempty" doc:"Failure domain"`
	Roles         []string `json:"roles" doc:"Services that it hosts; none: all"`
	Version       string   `json:"version,omitempty"`
	Features      uint32   `json:"features" doc:"Newest feature level that it knows"`
	Self          bool     `json:"self"`
	State         string   `json:"state" enum:"joining,active,draining,decommissioning,decommissioned" doc:"What is wanted of it"`
	StateSince    string   `json:"state_since,omitempty" format:"date-time"`
	StateReason   string   `json:"state_reason,omitempty"`
	Health        string   `json:"health" enum:"healthy,suspect,unhealthy,dead" doc:"How it fares"`
	HealthSince   string   `json:"health_since,omitempty" format:"date-time"`
	Reason        string   `json:"reason,omitempty" doc:"Why it is not healthy"`
	Healthy       bool     `json:"healthy"`
	RTTMS         float64  `json:"rtt_ms" doc:"Round trip from the answering node"`
	ClockOffsetMS float64  `json:"clock_offset_ms" doc:"Its clock minus the answering node's"`
	Replicas      int      `json:"replicas" doc:"As far as the answering node knows, as leaders"`
	Leaders       int      `json:"leaders"`
	StartedAt     string   `json:"started_at,omitempty" format:"date-time"`
	Boot          uint64   `json:"boot" doc:"How often it has been started"`
}

// Cluster is the cluster as a whole.
type Cluster struct {
	ID               string   `json:"id"`
	Features         uint32   `json:"features" doc:"Feature level in force: what every node knows"`
	Replicas         int      `json:"replicas" doc:"Copies of each shard, as far as there are nodes"`
	DownAfterSeconds int64    `json:"down_after_seconds" doc:"How long a node has to be dead before its replicas are rebuilt"`
	Version          uint64   `json:"version" doc:"Raised by every change of the cluster, its nodes and shards"`
	Blocked          []string `json:"blocked" doc:"What ought to be done and cannot be; known to the leader of the meta shard"`
}

// Reach is one direction between two nodes.
type Reach struct {
	From          uint64  `json:"from"`
	To            uint64  `json:"to"`
	Reached       bool    `json:"reached"`
	RTTMS         float64 `json:"rtt_ms"`
	ClockOffsetMS float64 `json:"clock_offset_ms" doc:"Clock of to minus that of from"`
	Since         string  `json:"since,omitempty" format:"date-time"`
}

// NodePage lists the nodes, and who reaches whom.
type NodePage struct {
	Cluster      Cluster `json:"cluster"`
	Nodes        []Node  `json:"nodes"`
	Reachability []Reach `json:"reachability"`
}

// NodeJoin is a node that wants to be admitted.
type NodeJoin struct {
	Cluster  string   `json:"cluster,omitempty" maxBytes:"255" doc:"The cluster that it expects; any unless stated"`
	Name     string   `json:"name,omitempty" maxBytes:"63"`
	HTTP     string   `json:"http" maxBytes:"255" doc:"host:port at which others reach it, as all three addresses"`
	Peers    string   `json:"peers" maxBytes:"255"`
	Gossip   string   `json:"gossip,omitempty" maxBytes:"255"`
	Zone     string   `json:"zone,omitempty" maxBytes:"63"`
	Roles    []string `json:"roles,omitempty" maxItems:"16" doc:"Services that it hosts; all unless stated"`
	Version  string   `json:"version,omitempty" maxBytes:"255"`
	Format   uint32   `json:"format" doc:"Newest data format that it knows"`
	Features uint32   `json:"features" doc:"Newest feature level that it knows"`
	Process  string   `json:"process" pattern:"^[0-9]{1,20}$" doc:"Drawn by the process: a repeated request of it gets the same answer"`
	Replaces uint64   `json:"replaces,omitempty" doc:"The node whose place it takes, which is gone for good"`
	Clock    int64    `json:"clock" doc:"Its clock when it sent this, in ns since 1970"`
}

// NodeJoined admits a node.
type NodeJoined struct {
	Node    uint64 `json:"node"`
	Cluster string `json:"cluster"`
	View    []byte `json:"view" doc:"All that the node has to know, for the node"`
	PSP     string `json:"psp" doc:"The payment provider of the node that admits, which the new one takes unless it is told another; empty for none"`
}

// NodeChange says why a node's state is changed.
type NodeChange struct {
	Reason string `json:"reason,omitempty" maxBytes:"255"`
	DryRun bool   `json:"dry_run,omitempty" doc:"Only say whether it could be done"`
}

// JoinToken lets nodes join.
type JoinToken struct {
	Token string `json:"token" doc:"Shown once; the one before is worth nothing from then on"`
}

// Records answers which nodes offer a service, as DNS over HTTPS does in JSON.
type Records struct {
	Status   int        `json:"Status" doc:"0, or 3 (NXDOMAIN) for a service that does not exist"`
	Question []Question `json:"Question"`
	Answer   []Record   `json:"Answer,omitempty"`
}

// Question is what was asked for.
type Question struct {
	Name string `json:"name"`
	Type int    `json:"type" doc:"33: SRV"`
}

// Record is an SRV record.
type Record struct {
	Name string `json:"name"`
	Type int    `json:"type"`
	TTL  int    `json:"TTL"`
	Data string `json:"data" doc:"Priority, weight, port and host" example:"0 10 7400 shop1.example."`
}

// Replica is one replica of a shard as its leader sees it.
type Replica struct {
	ID    uint64 `json:"id" doc:"Never used again within the shard"`
	Node  uint64 `json:"node"`
	Match uint64 `json:"match"`
	State string `json:"state"`
}

// Move is a replica on its way.
type Move struct {
	From        uint64  `json:"from" doc:"Node; 0 when a replica is added"`
	To          uint64  `json:"to"`
	Reason      string  `json:"reason"`
	Doing       string  `json:"doing"`
	Share       float64 `json:"share" doc:"How much of the way is done, 0 to 1"`
	LeftSeconds float64 `json:"left_seconds" doc:"An estimate; 0 when there is none"`
	StartedAt   string  `json:"started_at,omitempty" format:"date-time"`
}

// Shard describes one shard.
type Shard struct {
	ID        string    `json:"id"`
	Leader    uint64    `json:"leader" doc:"0 when there is none"`
	Preferred uint64    `json:"preferred" doc:"Node that should lead; 0: any"`
	State     string    `json:"state" enum:"ok,under_replicated,moving,unavailable"`
	Term      uint64    `json:"term"`
	Applied   uint64    `json:"applied"`
	Commit    uint64    `json:"commit"`
	Replicas  []Replica `json:"replicas"`
	Move      *Move     `json:"move,omitempty"`
}

// ShardPage describes the shards that the answering node knows of, and how many each service has.
type ShardPage struct {
	Shards []Shard        `json:"shards"`
	Counts map[string]int `json:"counts"`
}

// MoveRequest moves a replica from one node to another.
type MoveRequest struct {
	From uint64 `json:"from" minimum:"1"`
	To   uint64 `json:"to" minimum:"1"`
}

// MoveAccepted is a move that has begun.
type MoveAccepted struct {
	Shard string `json:"shard"`
	From  uint64 `json:"from"`
	To    uint64 `json:"to"`
}

// RecoverRequest asks what an unsafe recovery would do, or with the confirmation does it.
type RecoverRequest struct {
	Confirm string `json:"confirm,omitempty" maxBytes:"1000" doc:"Exactly what the answer without it says"`
}

// ShardRecovery is what an unsafe recovery would do, or has done.
type ShardRecovery struct {
	Shard     string   `json:"shard"`
	Node      uint64   `json:"node" doc:"Has the survivor that goes on alone"`
	Term      uint64   `json:"term" doc:"Of its last entry, as index"`
	Index     uint64   `json:"index"`
	Survivors []uint64 `json:"survivors" doc:"Nodes with a replica that answered"`
	Missing   []uint64 `json:"missing" doc:"Nodes with a voter that did not"`
	Confirm   string   `json:"confirm,omitempty" doc:"What has to be sent to do it"`
	Warning   string   `json:"warning,omitempty"`
	Done      bool     `json:"done"`
}

// DownAfter says how long a node has to be dead before its replicas are rebuilt.
type DownAfter struct {
	Seconds int64 `json:"seconds" minimum:"0" maximum:"2592000" doc:"0: the default"`
}

// JournalEntry is something that happened to the cluster.
type JournalEntry struct {
	Seq    uint64 `json:"seq"`
	At     string `json:"at" format:"date-time"`
	Type   string `json:"type" example:"node.joined"`
	Node   uint64 `json:"node,omitempty"`
	Shard  string `json:"shard,omitempty"`
	Detail string `json:"detail"`
}

// JournalPage is a page of the cluster's journal, oldest first.
type JournalPage struct {
	Events []JournalEntry `json:"events"`
}

// Version tells what a node runs.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
}

// PaymentPage is a page of payments.
type PaymentPage struct {
	Payments   []Payment `json:"payments"`
	HasMore    bool      `json:"has_more"`
	NextCursor string    `json:"next_cursor,omitempty" doc:"Pass it as ?cursor= for the next page, or as ?after= of the audit"`
}

// Callback is what a provider tells. It only makes Hanse ask the provider about the payment.
type Callback struct {
	PaymentID string `json:"payment_id" maxBytes:"255"`
	Operation string `json:"operation,omitempty" maxBytes:"255"`
	Type      string `json:"type,omitempty" maxBytes:"255"`
}

// ItemScan is a page of stock counters.
type ItemScan struct {
	Items   []StockChanged `json:"items"`
	HasMore bool           `json:"has_more"`
}

// HoldScan is a page of holds.
type HoldScan struct {
	Holds   []Hold `json:"holds"`
	HasMore bool   `json:"has_more"`
}

// Hold is what an order, or a reservation, keeps in one inventory shard.
type Hold struct {
	ID           string     `json:"id"`
	State        string     `json:"state" enum:"held,allocated,refused,void,released,expired,consumed,tentative"`
	Location     string     `json:"location"`
	FreeStanding bool       `json:"free_standing"`
	UpdatedAt    string     `json:"updated_at" format:"date-time"`
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

// MovementScan is a page of receipts and adjustments.
type MovementScan struct {
	Movements []Movement `json:"movements"`
	HasMore   bool       `json:"has_more"`
}

// Movement is a receipt or an adjustment.
type Movement struct {
	Seq        uint64 `json:"seq"`
	SKU        string `json:"sku"`
	Location   string `json:"location"`
	Quantity   int64  `json:"quantity"`
	Adjustment bool   `json:"adjustment"`
	Reason     string `json:"reason,omitempty"`
	At         string `json:"at" format:"date-time"`
}
