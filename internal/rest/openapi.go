package rest

import (
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"hanse/internal/reject"
)

// openapi describes the API (OpenAPI 3.1), from the table of routes and the JSON types: there is nothing else to keep true.
func (s *server) openapi(c *call) error {
	body, err := s.description()
	if err != nil {
		return err
	}
	c.send(http.StatusOK, "", append(c.buffer(), body...)) // send keeps what it is given
	return nil
}

type object = map[string]any

func (s *server) describe() ([]byte, error) {
	schemas := object{}
	paths := object{}
	for _, rt := range s.routes() {
		path := strings.ReplaceAll(rt.path, "...}", "}")
		operations, _ := paths[path].(object)
		if operations == nil {
			operations = object{}
			paths[path] = operations
		}
		operations[strings.ToLower(rt.method)] = rt.describe(schemas)
	}
	schemaOf(schemas, reflect.TypeFor[Problem]())
	return json.MarshalIndent(object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Hanse", "version": s.cfg.Version,
			"description": "Orders, stock and payments that stay right when machines fail. Amounts are whole minor units, times RFC 3339 in UTC. Every error is an application/problem+json with a permanent code; see /docs/errors. A request may bring a traceparent (W3C Trace Context); the answer names its trace in Trace-Id, and so do the logs of all nodes that worked on it.",
			"license":     object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"paths":      paths,
		"components": object{"schemas": schemas},
	}, "", " ")
}

const idempotencyDoc = "1 to 255 visible characters, unique for the caller. For 7 days a request with the same key and body has no further effect and gets the first answer again; any other request with the key is refused. " +
	"A key with the customer's ID in braces, for example {ann}7f3a, saves its orders a round in the cluster"

func (rt *route) describe(schemas object) object {
	op := object{"operationId": rt.name, "summary": rt.summary, "tags": []string{rt.tag}}
	var params []object
	for part := range strings.SplitSeq(rt.path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			name = strings.TrimSuffix(strings.TrimSuffix(name, "}"), "...")
			params = append(params, object{"name": name, "in": "path", "required": true, "schema": object{"type": "string"}})
		}
	}
	listed := rt.params
	if rt.reads {
		listed = slices.Concat(listed, readParams)
	}
	for _, p := range listed {
		described := object{"name": p.name, "in": p.in, "description": p.doc, "schema": object{"type": p.kind}}
		if slices.Contains(rt.needs, p.name) {
			described["required"] = true
		}
		params = append(params, described)
	}
	if rt.method != http.MethodGet && rt.tag != "cluster" { // what is done to a cluster is a state to be in: again it changes nothing
		params = append(params, object{
			"name": "Idempotency-Key", "in": "header", "required": rt.needsKey, "schema": object{"type": "string", "minLength": 1, "maxLength": 255},
			"description": idempotencyDoc,
		})
	}
	if len(params) > 0 {
		op["parameters"] = params
	}
	if rt.in != nil {
		op["requestBody"] = object{"required": !rt.mayBeEmpty, "content": object{"application/json": object{"schema": requestSchema(schemas, reflect.TypeOf(rt.in))}}}
	} else if rt.inType != "" {
		op["requestBody"] = object{"content": object{rt.inType: object{}}}
	}
	status := rt.status
	if status == 0 {
		status = http.StatusOK
	}
	success := object{"description": http.StatusText(status)}
	switch {
	case rt.out != nil:
		success["content"] = object{"application/json": object{"schema": schemaOf(schemas, reflect.TypeOf(rt.out))}}
	case rt.outType != "":
		success["content"] = object{rt.outType: object{}}
	}
	if rt.out != nil {
		success["headers"] = object{
			"Hanse-Position":      header("Where the answer stands in which shard's history; pass it as Hanse-Min-Position to read what was written"),
			"Idempotent-Replayed": header("true: the request with this key has been carried out before, and this one changed nothing"),
		}
	}
	responses := object{strconv.Itoa(status): success}
	if rt.waits {
		responses["202"] = object{
			"description": "Accepted: the outcome is not known yet", "content": success["content"],
			"headers": object{"Location": header("The order to read")},
		}
	}
	if slices.ContainsFunc(rt.params, func(p param) bool { return p.name == "If-None-Match" }) && rt.method == http.MethodGet {
		responses["304"] = object{"description": "Not Modified: the order is as the ETag in If-None-Match says"}
	}
	byStatus := map[int][]string{}
	for _, code := range rt.codes {
		byStatus[reject.Status(code)] = append(byStatus[reject.Status(code)], code)
	}
	for status, codes := range byStatus {
		responses[strconv.Itoa(status)] = problemResponse(http.StatusText(status) + ": " + strings.Join(codes, ", "))
	}
	responses["default"] = problemResponse("An error; its code says what to do")
	op["responses"] = responses
	return op
}

func header(description string) object {
	return object{"description": description, "schema": object{"type": "string"}}
}

func problemResponse(description string) object {
	return object{
		"description": description,
		"headers":     object{"Retry-After": header("Seconds after which the same request, with the same key, is worth sending again")},
		"content":     object{"application/problem+json": object{"schema": object{"$ref": "#/components/schemas/Problem"}}},
	}
}

// requestSchema is the schema of a body that is sent to us: what it does not describe is refused. Answers may get members later.
func requestSchema(schemas object, t reflect.Type) object {
	s := schemaOf(schemas, t)
	closed := schemas[t.Name()].(object)
	closed["additionalProperties"] = false
	for _, f := range reflect.VisibleFields(t) {
		part := f.Type
		for part.Kind() == reflect.Pointer || part.Kind() == reflect.Slice {
			part = part.Elem()
		}
		if part.Kind() == reflect.Struct {
			requestSchema(schemas, part)
		}
	}
	return s
}

// schemaOf returns the schema of a type, adding it and what it needs to schemas.
func schemaOf(schemas object, t reflect.Type) object {
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(schemas, t.Elem())
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return object{"type": "number", "format": "double"}
	case reflect.Int64, reflect.Int, reflect.Uint64, reflect.Uint32:
		s := object{"type": "integer", "format": "int64"}
		if t.Kind() == reflect.Uint64 || t.Kind() == reflect.Uint32 {
			s["minimum"] = 0
		}
		return s
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": schemaOf(schemas, t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": schemaOf(schemas, t.Elem())}
	case reflect.Interface:
		return object{}
	}
	ref := object{"$ref": "#/components/schemas/" + t.Name()}
	if _, known := schemas[t.Name()]; known {
		return ref
	}
	schemas[t.Name()] = object{} // for types that hold themselves
	properties := object{}
	required := []string{}
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous {
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		properties[name] = property(schemas, f)
		if options != "omitempty" {
			required = append(required, name)
		}
	}
	s := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		s["required"] = required
	}
	schemas[t.Name()] = s
	return ref
}

// property is a field's schema with what its tags say.
func property(schemas object, f reflect.StructField) object {
	s := schemaOf(schemas, f.Type)
	if _, isRef := s["$ref"]; isRef {
		if doc := f.Tag.Get("doc"); doc != "" {
			s["description"] = doc
		}
		return s
	}
	for _, tag := range []string{"doc", "format", "pattern", "example"} {
		if v := f.Tag.Get(tag); v != "" {
			switch tag {
			case "doc":
				s["description"] = v
			case "example":
				s["examples"] = []string{v}
			default:
				s[tag] = v
			}
		}
	}
	for _, tag := range []string{"minLength", "maxLength", "minItems", "maxItems", "minimum", "maximum"} {
		if n, err := strconv.ParseInt(f.Tag.Get(tag), 10, 64); err == nil {
			s[tag] = n
		}
	}
	if v := f.Tag.Get("maxBytes"); v != "" { // the keyword counts characters, of which there are no more than bytes
		n, _ := strconv.ParseInt(v, 10, 64)
		s["maxLength"] = n
		bound := "At most " + v + " bytes in UTF-8"
		if doc, has := s["description"].(string); has {
			bound = doc + ". " + bound
		}
		s["description"] = bound
	}
	if v := f.Tag.Get("enum"); v != "" {
		s["enum"] = strings.Split(v, ",")
	}
	return s
}

const pageStyle = `<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a2430}
code{background:#eef2f5;padding:.1em .3em;border-radius:3px}h2{margin-top:2.5rem;border-bottom:1px solid #d5dde3}
.m{display:inline-block;min-width:4rem;font-weight:600;color:#0b6e5f}dt{margin-top:.8rem}dd{margin:.1rem 0 .1rem 4.4rem;color:#41505c}
@media(prefers-color-scheme:dark){body{background:#12181d;color:#dfe7ec}code{background:#222c34}dd{color:#a9b7c1}h2{border-color:#33414b}.m{color:#5fd1bd}}</style>`

// docs is a page for people, complete in itself.
func (s *server) docs(c *call) error {
	var b strings.Builder
	b.WriteString("<!doctype html><html lang=en><meta charset=utf-8><title>Hanse API</title>" + pageStyle +
		"<h1>Hanse API</h1><p>Amounts are whole minor units, times RFC 3339 in UTC. Requests that move money or stock carry an <code>Idempotency-Key</code>. " +
		"Errors are <code>application/problem+json</code> with a permanent code: <a href=/docs/errors>all codes</a>. For machines: <a href=/openapi.json>openapi.json</a>.</p>")
	tag := ""
	for _, rt := range s.routes() {
		if rt.tag != tag {
			if tag != "" {
				b.WriteString("</dl>")
			}
			tag = rt.tag
			fmt.Fprintf(&b, "<h2>%s</h2><dl>", html.EscapeString(tag))
		}
		fmt.Fprintf(&b, "<dt><span class=m>%s</span> <code>%s</code></dt><dd>%s", rt.method, html.EscapeString(rt.path), html.EscapeString(rt.summary))
		for _, p := range rt.params {
			fmt.Fprintf(&b, "<br><code>%s</code> (%s): %s", html.EscapeString(p.name), p.in, html.EscapeString(p.doc))
		}
		b.WriteString("</dd>")
	}
	b.WriteString("</dl></html>")
	c.send(http.StatusOK, "text/html; charset=utf-8", []byte(b.String()))
	return nil
}

// errorDocs explains every code at the address that problems point to.
func (s *server) errorDocs(c *call) error {
	var b strings.Builder
	b.WriteString("<!doctype html><html lang=en><meta charset=utf-8><title>Hanse error codes</title>" + pageStyle + "<h1>Error codes</h1><p>Codes are permanent: never renamed, never reused.</p><dl>")
	for _, code := range reject.Codes() {
		fmt.Fprintf(&b, "<dt id=%s><span class=m>%d</span> <code>%s</code></dt><dd>%s<br>%s</dd>",
			code.Code, code.Status, code.Code, html.EscapeString(code.Cause), html.EscapeString(code.Remedy))
	}
	b.WriteString("</dl></html>")
	c.send(http.StatusOK, "text/html; charset=utf-8", []byte(b.String()))
	return nil
}
