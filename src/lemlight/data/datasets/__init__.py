"""Public data sets, the folder of a hospital, and what they share: each is a function that gives an image table.

It raises one LemlightError with all that is wrong with the download; what is missing or broken is only a warning with
`allow_missing`.
"""
