package envd

import "net/http"

// cors lets pages of any origin ask, as E2B's SDK does in a browser. That opens nothing: no browser adds the token, or a signature, by
// itself.
func cors(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Access-Control-Allow-Origin", "*")
		if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
			head.Set("Access-Control-Expose-Headers", "*")
			next.ServeHTTP(w, r)
			return
		}
		head.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT")
		head.Set("Access-Control-Allow-Headers", "*, Authorization") // which no asterisk stands for
		head.Set("Access-Control-Max-Age", "7200")
		w.WriteHeader(http.StatusNoContent)
	})
}
