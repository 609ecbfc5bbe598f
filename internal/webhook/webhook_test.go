package webhook

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"wrenn.dev/wrenn/internal/errs"
)

// The example of the specification's own libraries.
const (
	specSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	specID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	specBody      = `{"test": 2432232314}`
	specSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

var specTime = time.Unix(1614265330, 0)

func TestSignIsWhatOthersSign(t *testing.T) {
	h := http.Header{}
	if err := Sign(h, specID, specTime, []byte(specBody), specSecret); err != nil {
		t.Fatal(err)
	}
	if h.Get("webhook-signature") != specSignature || h.Get("webhook-id") != specID || h.Get("webhook-timestamp") != "1614265330" {
		t.Error(h)
	}
}

func TestVerify(t *testing.T) {
	other, body := NewSecret(), []byte(specBody)
	message := func(change func(http.Header)) http.Header {
		h := http.Header{}
		if err := Sign(h, specID, specTime, body, other, specSecret); err != nil {
			t.Fatal(err)
		}
		change(h)
		return h
	}
	same := func(http.Header) {}
	for _, good := range []struct {
		now     time.Time
		secrets []string
		change  func(http.Header)
	}{
		{specTime, []string{specSecret}, same}, {specTime, []string{other}, same}, {specTime, []string{NewSecret(), specSecret}, same},
		{specTime.Add(Tolerance), []string{specSecret}, same}, {specTime.Add(-Tolerance), []string{specSecret}, same},
		{specTime, []string{specSecret}, func(h http.Header) { h.Set(SignatureHeader, "v1a,AAAA v1,%% "+specSignature) }},
	} {
		if err := Verify(message(good.change), body, good.now, good.secrets...); err != nil {
			t.Error(err)
		}
	}
	set := func(name, value string) func(http.Header) { return func(h http.Header) { h.Set(name, value) } }
	for name, change := range map[string]func(http.Header){
		"no id": func(h http.Header) { h.Del(IDHeader) }, "no time": func(h http.Header) { h.Del(TimeHeader) },
		"no signature": func(h http.Header) { h.Del(SignatureHeader) },
		"another id":   set(IDHeader, "msg"), "another time": set(TimeHeader, "1614265331"), "another kind": set(SignatureHeader,
			strings.Replace(specSignature, "v1,", "v2,", 1)),
		"too many": set(SignatureHeader, strings.Repeat("v1,AAAA ", maxSignatures)+specSignature),
	} {
		if err := Verify(message(change), body, specTime, specSecret); !errors.Is(err, errs.ErrUnauthenticated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := Verify(message(same), []byte(specBody+" "), specTime, specSecret); !errors.Is(err, errs.ErrUnauthenticated) {
		t.Errorf("another body: %v", err)
	}
	for _, now := range []time.Time{specTime.Add(Tolerance + time.Second), specTime.Add(-Tolerance - time.Second)} {
		if err := Verify(message(same), body, now, specSecret); !errors.Is(err, errs.ErrUnauthenticated) {
			t.Errorf("at %v: %v", now, err)
		}
	}
}

func TestSecrets(t *testing.T) {
	if a, b := NewSecret(), NewSecret(); a == b || CheckSecret(a) != nil {
		t.Error(a, b)
	}
	for _, s := range []string{"", "whsec_", "whsec_AAAA", strings.TrimPrefix(specSecret, "whsec_"), specSecret + "=", "whsec_" +
		strings.Repeat("A", 88), "whpk_" + specSecret} {
		if err := CheckSecret(s); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %v", s, err)
		}
		if err := Verify(http.Header{"Webhook-Id": {"a"}, "Webhook-Timestamp": {"1614265330"}}, nil, specTime, s); !errors.Is(err, errs.ErrInvalid) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(specID, "1614265330", specSignature, []byte(specBody))
	f.Fuzz(func(t *testing.T, id, seconds, signature string, body []byte) {
		h := http.Header{IDHeader: {id}, TimeHeader: {seconds}, SignatureHeader: {signature}}
		if err := Verify(h, body, specTime, specSecret); err == nil && (id != specID || string(body) != specBody) &&
			!signedBy(id, seconds, body, signature) {
			t.Errorf("it takes %q %q %q %q", id, seconds, signature, body)
		}
	})
}

// signedBy says whether a signature is one of a message after all.
func signedBy(id, seconds string, body []byte, signature string) bool {
	h := http.Header{}
	at, err := time.ParseDuration(seconds + "s")
	return err == nil && Sign(h, id, time.Unix(int64(at/time.Second), 0), body, specSecret) == nil && strings.Contains(signature, h.Get(SignatureHeader))
}
