package rest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"hanse/internal/order"
	"hanse/internal/reject"
)

// document is /openapi.json as a client reads it.
type document struct {
	OpenAPI string `json:"openapi"`
	Info    struct{ Title, Version string }
	Paths   map[string]map[string]operation
	Parts   struct {
		Schemas map[string]map[string]any
	} `json:"components"`
}

type operation struct {
	ID         string `json:"operationId"`
	Summary    string
	Tags       []string
	Parameters []struct {
		Name, In, Description string
		Required              bool
		Schema                map[string]any
	}
	RequestBody *struct {
		Required bool
		Content  map[string]map[string]any
	}
	Responses map[string]struct {
		Description string
		Content     map[string]map[string]any
		Headers     map[string]any
	}
}

var description = sync.OnceValue(func() *document {
	s := &server{cfg: DefaultConfig(), backend: &fake{}}
	data, err := s.describe()
	if err != nil {
		panic(err)
	}
	d := &document{}
	if err := json.Unmarshal(data, d); err != nil {
		panic(err)
	}
	return d
})

// check validates JSON against a schema of the document.
func (d *document) check(name string, data []byte) error {
	schema, ok := d.Parts.Schemas[name]
	if !ok {
		return fmt.Errorf("there is no schema %s", name)
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		return err
	}
	return d.validate(schema, v, "")
}

// validate knows the keywords that the document uses, and TestDescription that it uses no others.
func (d *document) validate(schema map[string]any, v any, at string) error {
	if ref, ok := schema["$ref"].(string); ok {
		return d.validate(d.Parts.Schemas[strings.TrimPrefix(ref, "#/components/schemas/")], v, at)
	}
	kind, _ := schema["type"].(string)
	ok := kind == ""
	switch v := v.(type) {
	case string:
		ok = ok || kind == "string"
		if enum, has := schema["enum"].([]any); has && !slices.Contains(enum, any(v)) {
			return fmt.Errorf("%s is %q, the enum has %v", at, v, enum)
		}
		if schema["contentEncoding"] == "base64" {
			if _, err := base64.StdEncoding.DecodeString(v); err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
		}
		if schema["format"] == "date-time" {
			if _, err := time.Parse(time.RFC3339, v); err != nil {
				return fmt.Errorf("%s: %w", at, err)
			}
		}
		if pattern, has := schema["pattern"].(string); has && !regexp.MustCompile(pattern).MatchString(v) {
			return fmt.Errorf("%s is %q, the pattern is %s", at, v, pattern)
		}
	case float64:
		ok = ok || kind == "number" || kind == "integer" && v == float64(int64(v))
		if lo, has := schema["minimum"].(float64); has && v < lo {
			return fmt.Errorf("%s is %v, the minimum is %v", at, v, lo)
		}
	case bool:
		ok = ok || kind == "boolean"
	case []any:
		ok = ok || kind == "array"
		items, _ := schema["items"].(map[string]any)
		for i, e := range v {
			if err := d.validate(items, e, fmt.Sprintf("%s/%d", at, i)); err != nil {
				return err
			}
		}
	case map[string]any:
		ok = ok || kind == "object"
		properties, _ := schema["properties"].(map[string]any)
		for name, e := range v {
			sub, known := properties[name].(map[string]any)
			if !known {
				if sub, known = schema["additionalProperties"].(map[string]any); !known && kind != "" {
					return fmt.Errorf("%s/%s is not described", at, name)
				}
			}
			if err := d.validate(sub, e, at+"/"+name); err != nil {
				return err
			}
		}
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, has := v[name.(string)]; !has {
				return fmt.Errorf("%s lacks %v", at, name)
			}
		}
	}
	if !ok {
		return fmt.Errorf("%s is a %T, the schema says %s", at, v, kind)
	}
	return nil
}

func TestDescription(t *testing.T) {
	d := description()
	if d.OpenAPI != "3.1.0" || d.Info.Title == "" || d.Info.Version == "" {
		t.Errorf("the document begins %q %+v", d.OpenAPI, d.Info)
	}
	ids, used, sent := map[string]bool{}, map[string]bool{"Problem": true}, map[string]bool{}
	listed := 0
	for path, operations := range d.Paths {
		if !strings.HasPrefix(path, "/") || strings.Contains(path, "...") {
			t.Errorf("path %q", path)
		}
		for method, op := range operations {
			listed++
			where := strings.ToUpper(method) + " " + path
			if op.ID == "" || ids[op.ID] || op.Summary == "" || strings.HasSuffix(op.Summary, ".") || len(op.Tags) != 1 {
				t.Errorf("%s: operationId %q (twice: %v), summary %q, tags %v", where, op.ID, ids[op.ID], op.Summary, op.Tags)
			}
			ids[op.ID] = true
			names := map[string]bool{}
			for _, p := range op.Parameters {
				if names[p.In+p.Name] || p.Schema["type"] == nil || p.In != "path" && p.Description == "" || !slices.Contains([]string{"path", "query", "header"}, p.In) {
					t.Errorf("%s: parameter %+v", where, p)
				}
				names[p.In+p.Name] = true
			}
			for _, m := range regexp.MustCompile(`\{([^}]*)\}`).FindAllStringSubmatch(path, -1) {
				if !names["path"+m[1]] {
					t.Errorf("%s: path parameter %s is not described", where, m[1])
				}
				delete(names, "path"+m[1])
			}
			for name := range names {
				if strings.HasPrefix(name, "path") {
					t.Errorf("%s: %s is not in the path", where, name)
				}
			}
			if op.RequestBody != nil {
				if method == "get" || method == "delete" || len(op.RequestBody.Content) == 0 {
					t.Errorf("%s has body %v", where, op.RequestBody)
				}
				for _, content := range op.RequestBody.Content {
					refs(content, used)
					refs(content, sent)
				}
			}
			success := 0
			for status, r := range op.Responses {
				if r.Description == "" {
					t.Errorf("%s: %s has no description", where, status)
				}
				if status[0] == '2' {
					success++
				} else if status == "304" {
					if len(r.Content) > 0 || !names["headerIf-None-Match"] {
						t.Errorf("%s: 304 with %v, parameters %v", where, r.Content, names)
					}
				} else if _, ok := r.Content["application/problem+json"]; !ok {
					t.Errorf("%s: %s is no problem", where, status)
				}
				for _, content := range r.Content {
					refs(content, used)
				}
			}
			if _, ok := op.Responses["default"]; !ok || success == 0 {
				t.Errorf("%s: responses %v", where, op.Responses)
			}
		}
	}
	routes := (&server{backend: &fake{}}).routes()
	for _, rt := range routes {
		path := strings.ReplaceAll(rt.path, "...}", "}")
		if op, ok := d.Paths[path][strings.ToLower(rt.method)]; !ok || op.ID != rt.name {
			t.Errorf("%s %s is described as %q", rt.method, rt.path, op.ID)
		}
		if body := d.Paths[path][strings.ToLower(rt.method)].RequestBody; rt.in != nil && body.Required != !takesNothing(rt.in) {
			t.Errorf("%s %s needs a body: %v, its decoder says %v", rt.method, rt.path, body.Required, !takesNothing(rt.in))
		}
		for _, code := range rt.codes {
			if reject.Status(code) == http.StatusInternalServerError {
				t.Errorf("%s %s names the code %q, which is none", rt.method, rt.path, code)
			}
		}
	}
	if listed != len(routes) {
		t.Errorf("%d operations are described, there are %d routes", listed, len(routes))
	}
	known := []string{"$ref", "type", "enum", "format", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "items", "properties", "additionalProperties", "required", "description", "examples", "contentEncoding"}
	for range 2 { // requests are two levels deep
		for name := range sent {
			refs(d.Parts.Schemas[name], sent)
		}
	}
	for name, schema := range d.Parts.Schemas {
		refs(schema, used)
		if closed := schema["additionalProperties"] == false; closed != sent[name] {
			t.Errorf("schema %s is closed: %v, in a request: %v; a request's unknown members are refused, an answer may get some", name, closed, sent[name])
		}
		properties, _ := schema["properties"].(map[string]any)
		if schema["type"] != "object" || len(properties) == 0 {
			t.Errorf("schema %s is %v", name, schema)
		}
		required, _ := schema["required"].([]any)
		for _, r := range required {
			if properties[r.(string)] == nil {
				t.Errorf("schema %s requires %v, which it does not have", name, r)
			}
		}
		for member, p := range properties {
			// The records have the names that public resolvers use.
			if member == "" || strings.ToLower(member) != member && !strings.HasPrefix(name, "Record") {
				t.Errorf("schema %s has a member %q", name, member)
			}
			for keyword := range p.(map[string]any) {
				if !slices.Contains(known, keyword) {
					t.Errorf("schema %s/%s uses %q, which this test does not check", name, member, keyword)
				}
			}
		}
	}
	for name := range used {
		if d.Parts.Schemas[name] == nil {
			t.Errorf("$ref to %s, which is not there", name)
		}
	}
	for name := range d.Parts.Schemas {
		if !used[name] {
			t.Errorf("schema %s is used by nothing", name)
		}
	}
}

// takesNothing says whether the decoder of a type takes no body for an empty object.
func takesNothing(in any) bool {
	i := slices.IndexFunc(decoders, func(d decoder) bool {
		v, err := d.read([]byte(d.example))
		return err == nil && reflect.TypeOf(v) == reflect.TypeOf(in)
	})
	return i >= 0 && decoders[i].empty
}

// Not every mistake is one of the syntax, but what the document says about requests is what the server does.
func TestDescriptionOfRequests(t *testing.T) {
	d := description()
	get := d.Paths["/v1/orders/{id}"]["get"]
	if _, has := get.Responses["304"]; !has {
		t.Errorf("getOrder has the responses %v, want 304 among them", get.Responses)
	}
	for _, p := range d.Paths["/v1/orders"]["get"].Parameters {
		if p.Name == "customer_id" && !p.Required {
			t.Error("listOrders refuses requests without customer_id, the document says that it may be left out")
		}
	}
	customer := d.Parts.Schemas["OrderRequest"]["properties"].(map[string]any)["customer_id"].(map[string]any)
	if customer["description"] != "Empty for a guest. At most 255 bytes in UTF-8" || customer["maxLength"] != 255.0 {
		t.Errorf("customer_id is described as %v, want its bound in bytes", customer)
	}
}

// refs collects what a part of the document refers to.
func refs(v any, used map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			used[strings.TrimPrefix(ref, "#/components/schemas/")] = true
		}
		for _, e := range v {
			refs(e, used)
		}
	case []any:
		for _, e := range v {
			refs(e, used)
		}
	}
}

// The enums of types.go are written by hand: they name what the encoders can write.
func TestEnums(t *testing.T) {
	var states []string
	for _, s := range order.States() {
		states = append(states, order.StateName(s))
	}
	for _, test := range []struct {
		schema, member string
		names          []string
	}{
		{"Order", "state", append(states, "draft")},
		{"Return", "disposition", dispositions}, {"ReturnRequest", "disposition", dispositions},
		{"Reservation", "state", holdStates[1:]}, {"Hold", "state", holdStates[1:]},
		{"Operation", "state", opStates}, {"Operation", "kind", opKinds[1:]},
		{"Saga", "payment_step", append(slices.Clone(paymentSteps), "partially_captured", "captured", "partially_refunded", "refunded")},
		{"SagaLeg", "state", append(slices.Clone(legStates), "closed")},
	} {
		properties := description().Parts.Schemas[test.schema]["properties"].(map[string]any)
		var enum []string
		for _, v := range properties[test.member].(map[string]any)["enum"].([]any) {
			enum = append(enum, v.(string))
		}
		slices.Sort(enum)
		if want := slices.Sorted(slices.Values(test.names)); !slices.Equal(enum, want) {
			t.Errorf("%s.%s has the enum %v, the code writes %v", test.schema, test.member, enum, want)
		}
	}
	if got := nameOf(opStates, int32(99)); got != "unknown" {
		t.Errorf("a value of a later version is %q", got)
	}
}

// The examples of the decoders are what the document says may be sent.
func TestExamplesAreDescribed(t *testing.T) {
	for _, d := range decoders {
		v, err := d.read([]byte(d.example))
		if err != nil {
			t.Errorf("%s: %v", d.name, err)
			continue
		}
		if err := description().check(strings.TrimPrefix(fmt.Sprintf("%T", v), "rest."), []byte(d.example)); err != nil {
			t.Errorf("%s: the document refuses %s: %v", d.name, d.example, err)
		}
	}
}

// The pages load nothing from elsewhere and name everything.
func TestPages(t *testing.T) {
	door, f := newDoor(t, nil)
	page := ask(door, "GET", "/docs", "").Body.String()
	for _, rt := range (&server{backend: f}).routes() {
		if !strings.Contains(page, rt.path) || !strings.Contains(page, html.EscapeString(rt.summary)) {
			t.Errorf("/docs lacks %s %s", rt.method, rt.path)
		}
	}
	codes := ask(door, "GET", "/docs/errors", "").Body.String()
	for _, c := range reject.Codes() {
		if !strings.Contains(codes, "id="+c.Code+">") {
			t.Errorf("/docs/errors has no anchor for %s", c.Code)
		}
	}
	for _, text := range []string{page, codes} {
		if external := regexp.MustCompile(`(src|href)=["']?(https?:)?//|@import|<script|url\(`).FindString(text); external != "" {
			t.Errorf("a page has %q: it must be complete in itself", external)
		}
	}
}
