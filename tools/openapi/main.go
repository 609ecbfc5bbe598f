// Openapi checks the REST API's document and writes it as JSON beside it, which is what the server reads and serves: so that it needs no YAML.
//
//	go run ./tools/openapi            # writes openapi/wrenn.json
//	go run ./tools/openapi check      # fails when it is not up to date
//
// It runs at the top of the repository.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/getkin/kin-openapi/openapi3"
)

const (
	source = "openapi/wrenn.yaml"
	target = "openapi/wrenn.json"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	doc, err := convert(source)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return os.WriteFile(target, doc, 0o644)
	}
	if len(args) > 1 || args[0] != "check" {
		return fmt.Errorf("%q: give nothing or check", args)
	}
	have, err := os.ReadFile(target)
	if err != nil {
		return err
	}
	if !bytes.Equal(have, doc) {
		return errors.New(target + " is not up to date; run 'make generate'")
	}
	return nil
}

// convert is the document as JSON. One that is against OpenAPI's rules is an error.
func convert(path string) ([]byte, error) {
	spec, err := openapi3.NewLoader().LoadFromFile(path)
	if err != nil {
		return nil, err
	}
	if err := spec.Validate(context.Background()); err != nil {
		return nil, err
	}
	raw, err := spec.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", " "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
