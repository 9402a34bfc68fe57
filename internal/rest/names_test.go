package rest

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"hanse/internal/reject"
)

// What no order accepts is not received either: it could never be sold. Every door has the same rule, code and words.
func TestEveryDoorHasTheSameNames(t *testing.T) {
	door, _ := newDoor(t, nil)
	key := 0
	for _, test := range []struct {
		name, sku, location string
		want                string
	}{
		{"a SKU as in real catalogues", "TEA/POT ö 1%", "", ""},
		{"a SKU of 64 characters, not bytes", strings.Repeat("ö", 64), "", ""},
		{"a blank", " ", "", wantSKU},
		{"a blank before", " A", "", wantSKU},
		{"a blank behind", "A ", "", wantSKU},
		{"65 characters", strings.Repeat("x", 65), "", wantSKU},
		{"a space without width", "\u200b", "", wantSKU},
		{"a change of direction", "A\u202eB", "", wantSKU},
		{"a control character", "A\u0007", "", wantSKU},
		{"a lost character", "A\ufffd", "", wantSKU},
		{"a location", "A", "harbor ö", ""},
		{"a location of 128 bytes", "A", strings.Repeat("x", 128), ""},
		{"a location of 129 bytes", "A", strings.Repeat("x", 129), wantLocation},
		{"a location with a lost character", "A", "\ufffd", wantLocation},
		{"a location with a control character", "A", "\n", wantLocation},
	} {
		sku, _ := json.Marshal(test.sku)
		location, _ := json.Marshal(test.location)
		path := "/v1/stock/" + url.PathEscape(test.sku)
		for _, d := range []struct{ method, target, body string }{
			{"POST", "/v1/orders", `{"currency":"EUR","location":` + string(location) + `,"lines":[{"sku":` + string(sku) + `,"quantity":1,"unit_price":1}]}`},
			{"POST", "/v1/reservations", `{"sku":` + string(sku) + `,"location":` + string(location) + `,"quantity":1,"ttl_seconds":1}`},
			{"POST", path + "/receipts", `{"quantity":1,"location":` + string(location) + `}`},
			{"POST", path + "/adjustments", `{"quantity":1,"location":` + string(location) + `}`},
			{"PUT", path + "/tracking", `{"tracked":false,"location":` + string(location) + `}`},
		} {
			key++
			w := ask(door, d.method, d.target, d.body, "Idempotency-Key", strconv.Itoa(key))
			if test.want == "" {
				if w.Code > 299 {
					t.Errorf("%s: %s %s = %d %s, want it accepted", test.name, d.method, d.target, w.Code, w.Body)
				}
				continue
			}
			var p Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
				t.Fatal(err)
			}
			if w.Code != http.StatusBadRequest || p.Code != reject.InvalidRequest || len(p.Errors) != 1 || p.Errors[0].Detail != test.want {
				t.Errorf("%s: %s %s = %d %s, want one violation: %s", test.name, d.method, d.target, w.Code, w.Body, test.want)
			}
		}
		// What is on record stays readable, whatever its name.
		if w := ask(door, "GET", path, ""); w.Code != http.StatusOK {
			t.Errorf("%s: GET %s = %d", test.name, path, w.Code)
		}
	}
}
