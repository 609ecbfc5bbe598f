// Package contract enforces the REST API's document on requests: parameters and bodies are what it says, and nothing else.
//
//	doc, err := contract.Load(openapi.JSON)
//	op := doc.Operations["POST /v1/sandboxes"]
//	err = op.CheckParams(r)
//	err = op.CheckBody(body)
//
// What is refused is an errs.FieldError, which names the field and says of it what the document does. The part of JSON Schema that the document uses
// is a page of code; a document that uses more is refused by Load. The library that knows all of it is the tests' oracle: a
// start of it takes milliseconds and megabytes, which every process of this program would pay, and each sandbox's pager is one.
//
// It is a leaf package but for internal/errs.
package contract

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"wrenn.dev/wrenn/internal/errs"
)

// KeyHeader names the header that makes a request happen once.
const KeyHeader = "Idempotency-Key"

// seeDocument is the fix where the document says nothing of the field.
const seeDocument = "see GET /v1/openapi.json"

// Document is an OpenAPI document.
type Document struct {
	// Operations by method and path, as http.ServeMux's patterns are.
	Operations map[string]*Operation
	schemas    map[string]*schema
}

// Operation is what the document says of one.
type Operation struct {
	ID string
	// Scope is what a key must be good for; empty needs no key.
	Scope string
	// Keyed says that it takes an idempotency key.
	Keyed bool
	// Raw says that its body is bytes as they come, any number of them.
	Raw bool
	// Upgrades says that the connection becomes another than HTTP's.
	Upgrades bool
	params   []*param
	body     *schema // nil takes none, or is Raw
}

// param is a parameter of a request.
type param struct {
	Ref         string  `json:"$ref"`
	Name        string  `json:"name"`
	In          string  `json:"in"`
	Required    bool    `json:"required"`
	Description string  `json:"description"`
	Schema      *schema `json:"schema"`
}

// source is how a document is written, as far as it matters here.
type source struct {
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Schemas    map[string]*schema `json:"schemas"`
		Parameters map[string]*param  `json:"parameters"`
	} `json:"components"`
}

type operationSource struct {
	ID          string             `json:"operationId"`
	Scope       string             `json:"x-scope"`
	Security    *[]json.RawMessage `json:"security"`
	Parameters  []*param           `json:"parameters"`
	RequestBody *struct {
		Content map[string]struct {
			Schema *schema `json:"schema"`
		} `json:"content"`
	} `json:"requestBody"`
	Responses map[string]json.RawMessage `json:"responses"`
}

// Load reads a document. Each operation has an x-scope, or says with an empty security that it needs no key.
func Load(doc []byte) (*Document, error) {
	var src source
	if err := json.Unmarshal(doc, &src); err != nil {
		return nil, err
	}
	d := &Document{Operations: map[string]*Operation{}, schemas: src.Components.Schemas}
	for name, s := range d.schemas {
		if err := s.link(d.schemas); err != nil {
			return nil, fmt.Errorf("schema %s: %w", name, err)
		}
	}
	for path, item := range src.Paths {
		var shared []*param
		if raw := item["parameters"]; raw != nil {
			if err := json.Unmarshal(raw, &shared); err != nil {
				return nil, err
			}
		}
		for method, raw := range item {
			if method == "parameters" {
				continue
			}
			op, err := src.operation(raw, shared)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", method, path, err)
			}
			d.Operations[strings.ToUpper(method)+" "+path] = op
		}
	}
	return d, nil
}

func (src *source) operation(raw json.RawMessage, shared []*param) (*Operation, error) {
	var from operationSource
	if err := json.Unmarshal(raw, &from); err != nil {
		return nil, err
	}
	op := &Operation{ID: from.ID, Scope: from.Scope}
	if open := from.Security != nil && len(*from.Security) == 0; open == (op.Scope != "") {
		return nil, fmt.Errorf("it has x-scope %q and security %v", op.Scope, from.Security)
	}
	for _, p := range slices.Concat(shared, from.Parameters) {
		if name, ok := strings.CutPrefix(p.Ref, "#/components/parameters/"); ok {
			p = src.Components.Parameters[name]
		}
		if p == nil || p.Schema == nil {
			return nil, fmt.Errorf("a parameter that is not there")
		}
		if err := p.Schema.link(src.Components.Schemas); err != nil {
			return nil, fmt.Errorf("parameter %s: %w", p.Name, err)
		}
		op.params = append(op.params, p)
		op.Keyed = op.Keyed || p.In == "header" && p.Name == KeyHeader
	}
	_, op.Upgrades = from.Responses["101"]
	if from.RequestBody != nil {
		if _, op.Raw = from.RequestBody.Content["application/octet-stream"]; op.Raw {
			return op, nil
		}
		if op.body = from.RequestBody.Content["application/json"].Schema; op.body == nil {
			return nil, fmt.Errorf("its body is neither JSON nor bytes")
		}
		if err := op.body.link(src.Components.Schemas); err != nil {
			return nil, fmt.Errorf("body: %w", err)
		}
	}
	return op, nil
}

// CheckParams refuses a request's parameters, in its path, its query and its headers, that are not as they should be, and those in the
// query that the operation does not have. The request is one that http.ServeMux has matched.
func (o *Operation) CheckParams(r *http.Request) error {
	query := r.URL.Query()
	for name := range query {
		if !slices.ContainsFunc(o.params, func(p *param) bool { return p.In == "query" && p.Name == name }) {
			return errs.Field(fmt.Sprintf("%.80s", name), "there is no such parameter", "leave it out, or "+seeDocument)
		}
	}
	if !o.Keyed && r.Header.Get(KeyHeader) != "" {
		return errs.Field(KeyHeader, "this operation takes none", "leave it out")
	}
	for _, p := range o.params {
		var values []string
		switch p.In {
		case "path":
			values = []string{r.PathValue(p.Name)}
		case "query":
			values = query[p.Name]
		case "header":
			values = r.Header.Values(p.Name)
		}
		if len(values) == 0 {
			if p.Required {
				return errs.Field(p.Name, "it is missing", cmp.Or(p.Description, seeDocument))
			}
			continue
		}
		if err := p.check(values); err != nil {
			return err
		}
	}
	return nil
}

// check refuses values that the parameter can't have. Only a list has more than one.
func (p *param) check(values []string) error {
	s := p.Schema.real()
	for _, v := range values {
		if strings.ContainsRune(v, 0) || !utf8.ValidString(v) {
			return errs.Field(p.Name, fmt.Sprintf("%.40q is no text", v), "give UTF-8 without a zero byte")
		}
	}
	if s.Type != "array" {
		if len(values) > 1 {
			return errs.Field(p.Name, fmt.Sprintf("it is given %d times", len(values)), "give it once")
		}
		return s.check(p.Name, p.Description, parsed(s, values[0]))
	}
	list := make([]any, len(values))
	for i, v := range values {
		list[i] = parsed(s.Items.real(), v)
	}
	return s.check(p.Name, p.Description, list)
}

// parsed is a parameter's text as JSON would have it.
func parsed(s *schema, text string) any {
	switch s.Type {
	case "integer":
		if _, err := strconv.ParseInt(text, 10, 64); err == nil {
			return json.Number(text)
		}
	case "boolean":
		if text == "true" || text == "false" {
			return text == "true"
		}
	}
	return text
}

// CheckBody refuses a body that is not one JSON value as it should be, or that is there where none is taken.
func (o *Operation) CheckBody(body []byte) error {
	if o.body == nil {
		if len(body) > 0 {
			return errs.Field("body", "this operation takes none", "leave it out")
		}
		return nil
	}
	return o.body.checkJSON("body", body)
}

// Check refuses what is not one JSON value as the document's schema with the name says. It is for what comes in other ways than a request.
func (d *Document) Check(schema string, raw []byte) error {
	s := d.schemas[schema]
	if s == nil {
		return fmt.Errorf("the document has no schema %s", schema)
	}
	return s.checkJSON(schema, raw)
}

// checkJSON refuses what is not one JSON value that the schema allows. What names the whole of it.
func (s *schema) checkJSON(what string, raw []byte) error {
	if !json.Valid(raw) {
		return errs.Field(what, "it is not one JSON value", seeDocument)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return errs.Field(what, err.Error(), seeDocument)
	}
	return s.check("", "", v)
}
