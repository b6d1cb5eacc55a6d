"""Claims of papers beside what the committed runs say of them: what is claimed, the evidence, the verdict, the page."""
