package client

import (
	"errors"
	"strings"
	"testing"
	"unicode"

	"wrenn.dev/wrenn/internal/errs"
)

func TestReadAnswer(t *testing.T) {
	for n, want := range map[int]string{0: "", maxAnswer: "", maxAnswer + 1: "longer than", 1 << 20: "longer than"} {
		body, err := readAnswer(strings.NewReader(strings.Repeat("x", n)))
		if want == "" && (err != nil || len(body) != n) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%d bytes: got %d, %v", n, len(body), err)
		}
	}
}

// FuzzParseAwake reads what a guest may answer to a wake.
func FuzzParseAwake(f *testing.F) {
	f.Add([]byte(`{"start":"a","reseeded":true,"clockOffsetMs":-1.5,"steps":[{"name":"random","ms":2,"note":"x"}]}`))
	f.Add([]byte(`{"clockOffsetMs":1e308,"steps":[{"ms":-1e308,"name":"\u001b"},{},null]}`))
	f.Add([]byte(`{"steps":[` + strings.Repeat(`{},`, 100) + `{}]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := parseAwake(body)
		if err != nil {
			if !errors.Is(err, errs.ErrUnavailable) {
				t.Errorf("%v is not ErrUnavailable", err)
			}
			return
		}
		if a.ClockOffset.Abs() > maxDuration || len(a.Steps) > maxSteps {
			t.Errorf("got %v and %d steps", a.ClockOffset, len(a.Steps))
		}
		texts := []string{a.Start}
		for _, s := range a.Steps {
			texts = append(texts, s.Name, s.Note)
			if s.Took < 0 || s.Took > maxDuration {
				t.Errorf("a step took %v", s.Took)
			}
		}
		for _, text := range texts {
			if len([]rune(text)) > 6*maxText+1 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("a text is %q", text)
			}
		}
	})
}
