package envd

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// form is a body with files, as the SDKs make it: a file's name may have folders.
func form(files ...string) (contentType, body string) {
	var b strings.Builder
	for i := 0; i < len(files); i += 2 {
		fmt.Fprintf(&b, "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%s\"\r\nContent-Type: application/octet-stream\r\n\r\n%s\r\n", files[i], files[i+1])
	}
	return "multipart/form-data; boundary=XX", b.String() + "--XX--\r\n"
}

func packed(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(text)); err != nil {
		panic(err)
	}
	if err := z.Close(); err != nil {
		panic(err)
	}
	return b.String()
}

// TestUploads is what POST /files takes and answers.
func TestUploads(t *testing.T) {
	base, home, _ := serveFiles(t)
	kind, two := form("a.txt", "A", "sub/b.txt", "B")
	_, single := form("x/ignored.txt", "one")
	_, same := form("s.txt", "1", "./s.txt", "2")
	_, other := form("o.txt", "x")
	raw := map[string]string{"Content-Type": octets}
	with := func(more ...string) map[string]string {
		m := map[string]string{"Content-Type": octets}
		for i := 0; i < len(more); i += 2 {
			m[more[i]] = more[i+1]
		}
		return m
	}
	isForm := map[string]string{"Content-Type": kind}
	for name, c := range map[string]struct {
		query  url.Values
		body   string
		header map[string]string
		status int
		answer string
		file   string
		want   string
	}{
		"raw":               {filesQuery("path", "r/f"), "text", raw, 200, `[{"name":"f","path":"` + home + `/r/f","type":"file"}]`, "r/f", "text"},
		"empty":             {filesQuery("path", "e"), "", raw, 200, `[{"name":"e",`, "e", ""},
		"a mode":            {filesQuery("path", "m", "mode", "0700"), "text", raw, 200, `[{"name":"m",`, "m", "text"},
		"packed":            {filesQuery("path", "p"), packed("text"), with("Content-Encoding", "gzip"), 200, `[{"name":"p",`, "p", "text"},
		"a form":            {nil, two, isForm, 200, `[{"name":"a.txt","path":"` + home + `/a.txt","type":"file"},{"name":"b.txt","path":"` + home + `/sub/b.txt","type":"file"}]`, "sub/b.txt", "B"},
		"a form and a path": {filesQuery("path", "q/one"), single, isForm, 200, `[{"name":"one","path":"` + home + `/q/one","type":"file"}]`, "q/one", "one"},
		"a packed form":     {nil, packed(other), map[string]string{"Content-Type": kind, "Content-Encoding": "gzip"}, 200, `[{"name":"o.txt",`, "o.txt", "x"},
		"the same twice":    {nil, same, isForm, 400, `{"code":400,"message":"you cannot upload multiple files to the same path`, "s.txt", "1"},
		"no path":           {nil, "text", raw, 400, `{"code":400,"message":"path query parameter is required`, "", ""},
		"an empty path":     {filesQuery("path", ""), "text", raw, 400, `{"code":400,`, "", ""},
		"a folder":          {filesQuery("path", "."), "text", raw, 400, `{"code":400,`, "", ""},
		"a bad mode":        {filesQuery("path", "x", "mode", "4755"), "text", raw, 400, `{"code":400,"message":"mode '4755'`, "", ""},
		"no type":           {filesQuery("path", "x"), "text", map[string]string{"Content-Type": ""}, 400, `{"code":400,"message":"unsupported content type`, "", ""},
		"another type":      {filesQuery("path", "x"), "text", map[string]string{"Content-Type": "text/plain"}, 400, `{"code":400,`, "", ""},
		"no boundary":       {filesQuery("path", "x"), "text", map[string]string{"Content-Type": "multipart/form-data"}, 400, `{"code":400,`, "", ""},
		"no form":           {filesQuery("path", "x"), "text", isForm, 400, `{"code":400,`, "", ""},
		"an empty form":     {filesQuery("path", "x"), "--XX--\r\n", isForm, 400, `{"code":400,"message":"the form has no field 'file'"}`, "", ""},
		"a form cut off":    {filesQuery("path", "cut"), strings.TrimSuffix(single, "\r\n--XX--\r\n"), isForm, 400, `{"code":400,`, "", ""},
		"no gzip":           {filesQuery("path", "x"), "text", with("Content-Encoding", "gzip"), 400, `{"code":400,`, "", ""},
		"gzip cut off":      {filesQuery("path", "cut"), packed(strings.Repeat("text", 1000))[:30], with("Content-Encoding", "gzip"), 400, `{"code":400,`, "", ""},
		"another encoding":  {filesQuery("path", "x"), "text", with("Content-Encoding", "br"), 400, `{"code":400,`, "", ""},
		"nobody":            {filesQuery("path", "x", "username", "nope"), "text", raw, 401, `{"code":401,"message":"invalid username: 'nope'"}`, "", ""},
		"bad metadata":      {filesQuery("path", "x"), "text", with("X-Metadata-A", "\u00fc"), 400, `{"code":400,`, "", ""},
		"no token":          {filesQuery("path", "x"), "text", with(headerToken, ""), 401, `{"code":401,`, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			method := http.MethodPost
			if name == "raw" {
				method = http.MethodPut
			}
			status, head, body := askFiles(t, base, method, c.query, c.body, c.header)
			if status != c.status || !strings.HasPrefix(body, c.answer) || head.Get("Content-Type") != "application/json" {
				t.Errorf("got %d %s %v", status, body, head)
			}
			if c.file == "" {
				return
			}
			if b, err := os.ReadFile(filepath.Join(home, c.file)); err != nil || string(b) != c.want {
				t.Errorf("got %q, %v", b, err)
			}
		})
	}
	for _, name := range []string{"x", "cut"} {
		if _, err := os.Stat(filepath.Join(home, name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
	list, err := os.ReadDir(home)
	for _, e := range list {
		if strings.HasPrefix(e.Name(), ".") || err != nil {
			t.Errorf("left over: %s, %v", e.Name(), err)
		}
	}
}
