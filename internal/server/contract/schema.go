package contract

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"wrenn.dev/wrenn/internal/errs"
)

// schema is what a value may be: a part of JSON Schema.
type schema struct {
	Ref           string             `json:"$ref"`
	Type          string             `json:"type"`
	Format        string             `json:"format"`
	Description   string             `json:"description"`
	Pattern       string             `json:"pattern"`
	Enum          []string           `json:"enum"`
	Required      []string           `json:"required"`
	Properties    map[string]*schema `json:"properties"`
	Additional    *additional        `json:"additionalProperties"`
	Items         *schema            `json:"items"`
	MinLength     *int               `json:"minLength"`
	MaxLength     *int               `json:"maxLength"`
	MinItems      *int               `json:"minItems"`
	MaxItems      *int               `json:"maxItems"`
	UniqueItems   bool               `json:"uniqueItems"`
	MinProperties *int               `json:"minProperties"`
	MaxProperties *int               `json:"maxProperties"`
	Minimum       *int64             `json:"minimum"`
	Maximum       *int64             `json:"maximum"`
	// These say nothing of what a value may be.
	Default  any `json:"default"`
	Example  any `json:"example"`
	Varnames any `json:"x-enum-varnames"`

	to      *schema // of a $ref
	pattern *regexp.Regexp
	linked  bool
}

// plain is a schema that is decoded without the method below.
type plain schema

// UnmarshalJSON refuses keywords that this package does not know: they would be passed over.
func (s *schema) UnmarshalJSON(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	return dec.Decode((*plain)(s))
}

// additional is what fields may be that are not named: false for none, or a schema.
type additional struct{ schema *schema }

// UnmarshalJSON implements json.Unmarshaler.
func (a *additional) UnmarshalJSON(raw []byte) error {
	if string(raw) == "false" {
		return nil
	}
	a.schema = &schema{}
	return json.Unmarshal(raw, a.schema)
}

// link finds what the schema and those in it refer to, and compiles their patterns.
func (s *schema) link(named map[string]*schema) (err error) {
	if s.linked {
		return nil
	}
	s.linked = true
	if s.Ref != "" {
		if s.to = named[strings.TrimPrefix(s.Ref, "#/components/schemas/")]; s.to == nil {
			return fmt.Errorf("%s is not there", s.Ref)
		}
		return s.to.link(named)
	}
	if s.pattern, err = regexp.Compile(s.Pattern); err != nil {
		return err
	}
	below := slices.Collect(maps.Values(s.Properties))
	switch s.Type {
	case "array":
		if s.Items == nil {
			return fmt.Errorf("an array of nothing")
		}
		below = append(below, s.Items)
	case "object":
		if s.Additional != nil && s.Additional.schema != nil {
			below = append(below, s.Additional.schema)
		}
	case "string", "integer", "boolean":
	default:
		return fmt.Errorf("type %q is not known here", s.Type)
	}
	for _, b := range below {
		if err := b.link(named); err != nil {
			return err
		}
	}
	return nil
}

// real is the schema that a $ref is.
func (s *schema) real() *schema {
	for s.to != nil {
		s = s.to
	}
	return s
}

// check refuses a value, as encoding/json has it with json.Number, that the schema does not allow. At is where it is, "" for the whole; about is
// what the document says there.
func (s *schema) check(at, about string, v any) error {
	s = s.real()
	about = cmp.Or(about, s.Description)
	refuse := func(format string, args ...any) error {
		return errs.Field(cmp.Or(at, "body"), fmt.Sprintf(format, args...), cmp.Or(strings.TrimSpace(about), seeDocument))
	}
	problem := ""
	switch v := v.(type) {
	case string:
		problem = s.text(v)
	case json.Number:
		problem = s.number(v)
	case bool:
		if s.Type != "boolean" {
			problem = s.notA("a boolean")
		}
	case []any:
		if problem = s.list(v); problem == "" {
			return s.items(at, about, v)
		}
	case map[string]any:
		if s.Type != "object" {
			problem = s.notA("an object")
			break
		}
		return s.object(at, refuse, v)
	default:
		problem = "it is null"
	}
	if problem != "" {
		return refuse("%s", problem)
	}
	return nil
}

func (s *schema) notA(is string) string { return fmt.Sprintf("it is %s and not %s", is, s.Type) }

func (s *schema) text(v string) string {
	if s.Type != "string" {
		return s.notA("a string")
	}
	n := utf8.RuneCountInString(v)
	switch {
	case s.MinLength != nil && n < *s.MinLength:
		return fmt.Sprintf("it has %d characters, under %d", n, *s.MinLength)
	case s.MaxLength != nil && n > *s.MaxLength:
		return fmt.Sprintf("it has %d characters, over %d", n, *s.MaxLength)
	case len(s.Enum) > 0 && !slices.Contains(s.Enum, v):
		return fmt.Sprintf("%.40q is none of %s", v, strings.Join(s.Enum, ", "))
	case !s.pattern.MatchString(v):
		return fmt.Sprintf("%.40q does not match %s", v, s.Pattern)
	case s.Format == "date-time":
		if _, err := time.Parse(time.RFC3339, v); err != nil {
			return fmt.Sprintf("%.40q is no time such as 2006-01-02T15:04:05Z", v)
		}
	}
	return ""
}

func (s *schema) number(v json.Number) string {
	if s.Type != "integer" {
		return s.notA("a number")
	}
	n, err := strconv.ParseInt(v.String(), 10, 64)
	switch {
	case err != nil:
		return fmt.Sprintf("%.40s is no whole number", v)
	case s.Minimum != nil && n < *s.Minimum:
		return fmt.Sprintf("%d is under %d", n, *s.Minimum)
	case s.Maximum != nil && n > *s.Maximum:
		return fmt.Sprintf("%d is over %d", n, *s.Maximum)
	}
	return ""
}

func (s *schema) list(v []any) string {
	switch {
	case s.Type != "array":
		return s.notA("a list")
	case s.MinItems != nil && len(v) < *s.MinItems:
		return fmt.Sprintf("it has %d items, under %d", len(v), *s.MinItems)
	case s.MaxItems != nil && len(v) > *s.MaxItems:
		return fmt.Sprintf("it has %d items, over %d", len(v), *s.MaxItems)
	}
	return ""
}

// items checks a list's. Only lists of texts are to be unique.
func (s *schema) items(at, about string, v []any) error {
	seen := map[string]bool{}
	for i, item := range v {
		if err := s.Items.check(fmt.Sprintf("%s.%d", at, i), "", item); err != nil {
			return err
		}
		text, ok := item.(string)
		if s.UniqueItems && ok && seen[text] {
			return errs.Field(at, fmt.Sprintf("%.40q is in it twice", text), cmp.Or(about, "leave one out"))
		}
		seen[text] = true
	}
	return nil
}

// object checks an object's fields, in the order of their names, so that the same request is refused with the same words.
func (s *schema) object(at string, refuse func(string, ...any) error, v map[string]any) error {
	below := func(name string) string { return strings.TrimPrefix(at+"."+name, ".") }
	switch {
	case s.MinProperties != nil && len(v) < *s.MinProperties:
		return refuse("it has %d fields, under %d", len(v), *s.MinProperties)
	case s.MaxProperties != nil && len(v) > *s.MaxProperties:
		return refuse("it has %d fields, over %d", len(v), *s.MaxProperties)
	}
	for _, name := range s.Required {
		if _, ok := v[name]; !ok {
			return errs.Field(below(name), "it is missing", cmp.Or(s.Properties[name].real().Description, "give it"))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		field := s.Properties[name]
		if field == nil && s.Additional != nil {
			if field = s.Additional.schema; field == nil {
				return errs.Field(fmt.Sprintf("%.200s", below(name)), "there is no such field", "leave it out, or "+seeDocument)
			}
		}
		if field == nil {
			continue
		}
		if err := field.check(fmt.Sprintf("%.200s", below(name)), "", v[name]); err != nil {
			return err
		}
	}
	return nil
}
