package api

import (
	"context"

	"wrenn.dev/wrenn/internal/server/rest"
)

// ListTemplates implements rest.StrictServerInterface.
func (s *server) ListTemplates(ctx context.Context, _ rest.ListTemplatesRequestObject) (rest.ListTemplatesResponseObject, error) {
	list, err := s.Control.Templates(ctx)
	if err != nil {
		return nil, err
	}
	answer := rest.ListTemplates200JSONResponse{Templates: make([]rest.Template, len(list))}
	for i, t := range list {
		answer.Templates[i] = rest.Template{Name: t.Name, ID: t.TemplateID, Vcpus: t.Vcpus, MemoryMib: t.MemoryMib}
	}
	return answer, nil
}
